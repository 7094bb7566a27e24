//! Figures as people read them: four digits, whatever the size.

/// A figure, or a dash for what is no number.
pub(super) fn number(number: Option<f64>) -> String {
    number.map_or("-".to_owned(), figure)
}

/// Four digits, whatever the size: `0.01234`, `1.234e-7`.
pub(super) fn figure(number: f64) -> String {
    rounded(number, 4)
}

/// So many digits, whatever the size.
pub(super) fn rounded(number: f64, digits: u8) -> String {
    let size = number.abs();
    if number == 0.0 {
        return "0".to_owned();
    }
    if !(1e-4..1e6).contains(&size) {
        return format!("{number:.*e}", usize::from(digits - 1));
    }
    // 1 to 6 digits before the point, or up to 3 zeros behind it.
    #[allow(clippy::cast_possible_truncation)]
    let magnitude = size.log10().floor() as i32;
    let decimals = usize::try_from(i32::from(digits) - 1 - magnitude).unwrap_or(0);
    let text = format!("{number:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_has_four_digits() {
        for (number, expected) in [
            (0.0, "0"),
            (1.0, "1"),
            (-0.5, "-0.5"),
            (0.012_345_6, "0.01235"),
            (0.000_123_456, "0.0001235"),
            (0.000_012_345_6, "1.235e-5"),
            (123.456, "123.5"),
            (123_456.0, "123456"),
            (1_000.0, "1000"),
            (1_234_567.0, "1.235e6"),
            (f64::MAX, "1.798e308"),
        ] {
            assert_eq!(figure(number), expected);
        }
        assert_eq!(number(None), "-");
        assert_eq!(rounded(0.917_283_49, 6), "0.917283");
    }
}
