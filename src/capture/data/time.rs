//! Dates and times as tables have them in texts.

use jiff::SignedDuration;
use jiff::civil::{DateTime, Time, date};
use jiff::fmt::temporal::Pieces;

use super::column::Cell;

/// Longest text that may be a date and a time.
const TIME_BYTES_MAX: usize = 35;
const EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);

/// `2026-06-01`, `2026-06-01 12:00:00`, `2026-06-01T12:00:00.5+02:00`.
pub fn time(text: &str) -> Option<Cell<'_>> {
    let bytes = text.as_bytes();
    let is_of = |byte: &u8, form: &u8| match form {
        b'0' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b' '),
        form => byte == form,
    };
    let has_form =
        |form: &[u8]| form.len() <= bytes.len() && bytes.iter().zip(form).all(|(b, f)| is_of(b, f));
    if bytes.len() == 10 {
        return (has_form(b"0000-00-00") && instant(text).is_some()).then_some(Cell::Date(text));
    }
    let is_time = bytes.len() <= TIME_BYTES_MAX && has_form(b"0000-00-00T00:00");
    let is_plain = |rest: &[u8]| rest.iter().all(|b| b.is_ascii_digit() || b":.+-Z".contains(b));
    (is_time && is_plain(&bytes[16..]) && instant(text).is_some()).then_some(Cell::Time(text))
}

/// How long after the epoch: of what names no offset as if it were in UTC.
pub fn instant(text: &str) -> Option<SignedDuration> {
    let pieces = Pieces::parse(text).ok()?;
    let moment = pieces.date().to_datetime(pieces.time().unwrap_or(Time::midnight()));
    let offset = pieces.to_numeric_offset().map_or(0, |offset| offset.seconds());
    Some(moment.duration_since(EPOCH) - SignedDuration::from_secs(offset.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_days_that_there_are_are_dates() {
        for text in ["2026-06-01", "2024-02-29", "9999-12-31", "0001-01-01"] {
            assert_eq!(time(text), Some(Cell::Date(text)));
        }
        for text in
            ["2026-13-01", "2020-02-31", "2026-02-29", "2026-00-01", "2026-6-01", "20260601"]
        {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn times_have_minutes_at_least() {
        for text in [
            "2026-06-01T12:00",
            "2026-06-01 12:00:00",
            "2026-06-01T12:00:00.123456789Z",
            "2026-06-01T12:00:00.5+02:00",
            "9999-12-31T23:59:59Z",
        ] {
            assert_eq!(time(text), Some(Cell::Time(text)));
        }
        for text in
            ["2026-06-01T12", "2026-06-01T25:00", "2026-06-01T12:00+-", "2026-06-01T12:00 lunch"]
        {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn offsets_count() {
        let of = |text| instant(text).unwrap();
        assert!(of("2026-06-01T12:00:00+02:00") < of("2026-06-01T11:00:00Z"));
        assert_eq!(of("2026-06-01T12:00:00-01:30"), of("2026-06-01 13:30:00"));
        assert!(of("2026-06-01T00:00:00+00:01") < of("2026-06-01"));
    }
}
