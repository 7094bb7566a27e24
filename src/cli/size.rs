//! Sizes as people write them: `0`, `512M`, `10GiB`. Each unit is 1,024 of the one before.

/// Why a text is no size.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no size: expected a whole number of bytes, or one with K, M, G or T, such as 10G"
)]
pub struct SizeError(String);

/// Bytes of a size.
///
/// # Errors
/// Where it is none, or more than 64 bits hold.
pub fn parse_bytes(text: &str) -> Result<u64, SizeError> {
    let wrong = || SizeError(text.chars().take(80).collect());
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_not_a_number| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_with_a_unit() {
        for (text, expected) in [
            ("0", Some(0)),
            ("4096", Some(4_096)),
            ("7B", Some(7)),
            ("10G", Some(10 << 30)),
            ("10GiB", Some(10 << 30)),
            ("1k", Some(1_024)),
            ("2T", Some(2 << 40)),
            ("16777216T", None),
            ("", None),
            ("G", None),
            ("-1", None),
            ("1.5G", None),
            ("1 G", None),
            ("10%", None),
        ] {
            assert_eq!(parse_bytes(text).ok(), expected, "{text}");
        }
    }
}
