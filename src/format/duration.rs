//! Lengths of time as people write them: `30m`, `4h`, `30d`, `1w`.

use jiff::{SignedDuration, Span, SpanRelativeTo};

/// Longest time that makes sense here: ten years.
const HOURS_MAX: i64 = 10 * 366 * 24;

/// The length of time that `text` says; a day has 24 hours, a week seven days.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse(text: &str) -> Result<SignedDuration, String> {
    let wrong = || format!("`{text}` is no length of time: expected one like 30m, 4h or 30d");
    let span: Span = text.parse().map_err(|_| wrong())?;
    let days = SpanRelativeTo::days_are_24_hours();
    let duration = span.to_duration(days).map_err(|_| wrong())?;
    if !duration.is_positive() || HOURS_MAX < duration.as_hours() {
        return Err(format!(
            "`{text}` is out of range: expected more than nothing, at most ten years"
        ));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_24_hours() {
        let seconds = |text: &str| parse(text).map(|duration| duration.as_secs());
        assert_eq!(seconds("30d"), Ok(30 * 86_400));
        assert_eq!(seconds("4h"), Ok(4 * 3_600));
        assert_eq!(seconds("1h30m"), Ok(5_400));
        assert_eq!(seconds("2w"), Ok(14 * 86_400));
        for bad in ["", "4", "h", "-4h", "0s", "99999y", "1mo", "4 hours ago x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
