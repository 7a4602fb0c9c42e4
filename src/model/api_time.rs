//! Reads times in every form that the API uses or may come to use.
//!
//! The API's page shows `2024-01-01 21:42:10.309970` (no zone, read as UTC) and `2024-05-06T14:11:26.799976`; live
//! accounts also send ISO 8601 with `Z` or an offset. Similar exporters have met epoch numbers, other names of UTC,
//! commas, times without seconds, and the dates of mail and HTTP. All are read.
//!
//! Guarantees: a text or number that can mean two instants is not read. `exact` is false if an instant in microseconds
//! does not say all that was written. Must not depend on: the current time.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};

/// A timestamp as the lake stores it, and whether it says all that the API wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiTime {
    /// Microseconds since 1970-01-01 UTC.
    pub micros: i64,
    /// False if the API wrote more than an instant in microseconds (further digits, a leap second, the name of a zone),
    /// or not a whole time (epoch numbers, a date without a time of day).
    pub exact: bool,
}

/// The first second of year 1 in UTC, which Go and .NET write for "none".
const ZERO_SECS: i64 = -62_135_596_800;
/// The last second of year 9999, which is the last one that partitions, DuckDB and Spark can write.
const LAST_SECS: i64 = 253_402_300_799;
const DAY_SECS: i64 = 86_400;

/// The ranges of numbers that are read as an epoch, each with the nanoseconds of its unit. A number in a gap between
/// them may be something else: 20240301 a date, 20240301100000 a date and a time.
static EPOCHS: [(std::ops::Range<i128>, i128); 4] = [
    (100_000_000..100_000_000_000, 1_000_000_000),
    (1_000_000_000_000..10_000_000_000_000, 1_000_000),
    (1_000_000_000_000_000..10_000_000_000_000_000, 1_000),
    (1_000_000_000_000_000_000..10_000_000_000_000_000_000, 1),
];

/// Reads a text in any of the forms; `None` if it is no time, or lies outside the years 1 to 9999.
pub fn parse_api_time(text: &str) -> Option<ApiTime> {
    let text = text.trim();
    calendar(text).or_else(|| epoch_time(text)).or_else(|| mail_or_http(text))
}

/// Reads a JSON number as epoch seconds, milliseconds, microseconds or nanoseconds, by its size. Never exact, because
/// the API writes times as text.
pub fn epoch_time(number: &str) -> Option<ApiTime> {
    let Decimal { digits, scale } = Decimal::parse(number)?;
    let power = 10_i128.checked_pow(scale.unsigned_abs())?;
    let whole = if scale > 0 { digits.checked_div(power)? } else { digits.checked_mul(power)? };
    let (_, unit) = EPOCHS.iter().find(|(range, _)| range.contains(&whole))?;
    let nanos = digits.checked_mul(*unit)?;
    let nanos = if scale > 0 { nanos.checked_div(power)? } else { nanos.checked_mul(power)? };
    Some(ApiTime { micros: i64::try_from(nanos.checked_div(1_000)?).ok()?, exact: false })
}

/// Whether programs write this text or number for "no time": nothing, zero, or the zero time of Go and .NET (in any
/// zone), of Unix or of MySQL.
pub fn means_no_time(text: &str) -> bool {
    let text = text.trim();
    if text.is_empty() || text.starts_with("0000-00-00") {
        return true;
    }
    if let Some(Decimal { digits, scale }) = Decimal::parse(text) {
        let zero = i128::from(ZERO_SECS);
        return digits == 0 || scale == 0 && [1, 1_000, 1_000_000].iter().any(|unit| digits == zero * unit);
    }
    Calendar::parse(text).is_some_and(|time| time.secs.abs_diff(ZERO_SECS) < DAY_SECS.unsigned_abs())
}

/// Reads a date with or without a time of day.
fn calendar(text: &str) -> Option<ApiTime> {
    let Calendar { secs, micros, exact } = Calendar::parse(text)?;
    let is_time = secs.checked_sub(ZERO_SECS)? >= DAY_SECS && secs <= LAST_SECS;
    is_time.then_some(ApiTime { micros: secs.checked_mul(1_000_000)?.checked_add(micros)?, exact })
}

/// Reads the dates of mail (RFC 2822) and HTTP.
fn mail_or_http(text: &str) -> Option<ApiTime> {
    let mail = || DateTime::parse_from_rfc2822(text).ok().map(|time| time.to_utc());
    let http = || httpdate::parse_http_date(text).ok().map(DateTime::<Utc>::from);
    let secs = mail().or_else(http)?.timestamp();
    (ZERO_SECS + DAY_SECS..=LAST_SECS).contains(&secs).then_some(ApiTime { micros: secs * 1_000_000, exact: false })
}

/// A number as JSON writes it: its digits, and how many of them follow the point.
struct Decimal {
    digits: i128,
    scale: i32,
}

impl Decimal {
    /// More digits than any time has, and few enough for an `i128`.
    const MAX_DIGITS: usize = 30;

    fn parse(text: &str) -> Option<Self> {
        let mut rest = Rest(text.as_bytes());
        let sign = if rest.take(b'-') { -1 } else { 1 };
        let (mut digits, mut scale) = (0_i128, 0_i32);
        let mut read = |rest: &mut Rest<'_>, fraction: i32| {
            let mut count = 0;
            while let Some(digit) = rest.digit() {
                digits = digits.checked_mul(10)?.checked_add(digit.into())?;
                scale = scale.checked_add(fraction)?;
                count += 1;
            }
            (1..=Self::MAX_DIGITS).contains(&count).then_some(())
        };
        read(&mut rest, 0)?;
        if rest.take(b'.') {
            read(&mut rest, 1)?;
        }
        if rest.take_of(b"eE") {
            let sign = if rest.take(b'-') { -1 } else { 1 };
            rest.take(b'+');
            scale = scale.checked_sub(sign * i32::try_from(rest.number(1, 2)?).ok()?)?;
        }
        rest.is_empty().then_some(Decimal { digits: digits.checked_mul(sign)?, scale })
    }
}

/// A date with or without a time of day, read but not judged.
struct Calendar {
    /// Whole seconds since 1970-01-01 UTC.
    secs: i64,
    /// Of the second.
    micros: i64,
    exact: bool,
}

impl Calendar {
    /// Reads `2024-01-01T21:42:10.309970`: with a `T` or a blank, with or without seconds and a fraction, and with `Z`,
    /// an offset or no zone, which means UTC.
    fn parse(text: &str) -> Option<Self> {
        let mut rest = Rest(text.as_bytes());
        let date = rest.date()?;
        let midnight = date.and_time(NaiveTime::MIN).and_utc().timestamp();
        if rest.is_empty() {
            return Some(Calendar { secs: midnight, micros: 0, exact: false });
        }
        if !rest.take_of(b"Tt") && !rest.blanks() {
            return None;
        }
        let hour = rest.number(1, 2)?;
        let extended = rest.take(b':');
        let minute = rest.number(2, 2)?;
        let has_second = if extended { rest.take(b':') } else { rest.is_at_digit() };
        let second = if has_second { rest.number(2, 2)? } else { 0 };
        let (micros, whole_fraction) = if has_second && rest.take_of(b".,") { rest.fraction()? } else { (0, true) };
        if hour > 24 || hour == 24 && (minute, second, micros) != (0, 0, 0) || minute > 59 || second > 60 {
            return None;
        }
        let (offset, plain_zone) = rest.zone()?;
        let of_day = i64::from(hour) * 3_600 + i64::from(minute) * 60 + i64::from(second);
        let exact = whole_fraction && plain_zone && hour < 24 && second < 60;
        Some(Calendar { secs: midnight + of_day - offset, micros, exact })
    }
}

/// The part of a text that is not read yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn is_at_digit(&self) -> bool {
        self.0.first().is_some_and(u8::is_ascii_digit)
    }

    fn take(&mut self, byte: u8) -> bool {
        self.take_of(&[byte])
    }

    fn take_of(&mut self, bytes: &[u8]) -> bool {
        match self.0 {
            [first, rest @ ..] if bytes.contains(first) => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    /// Skips blanks; returns whether there were any.
    fn blanks(&mut self) -> bool {
        let before = self.0.len();
        self.0 = self.0.trim_ascii_start();
        self.0.len() < before
    }

    fn digit(&mut self) -> Option<u8> {
        match self.0 {
            [digit @ b'0'..=b'9', rest @ ..] => {
                self.0 = rest;
                Some(digit - b'0')
            }
            _ => None,
        }
    }

    /// Reads a number of `least` to `most` digits.
    fn number(&mut self, least: usize, most: usize) -> Option<u32> {
        let (mut number, mut count) = (0_u32, 0);
        while count < most
            && let Some(digit) = self.digit()
        {
            number = number.checked_mul(10)?.checked_add(digit.into())?;
            count += 1;
        }
        (count >= least).then_some(number)
    }

    /// Reads `2024-01-31`, `2024/01/31`, or `20240131` if more follows.
    fn date(&mut self) -> Option<NaiveDate> {
        let year = self.number(4, 4)?;
        let (month, day) = match self.0.first()? {
            separator @ (b'-' | b'/') => {
                self.take(*separator);
                let month = self.number(1, 2)?;
                (month, self.take(*separator).then(|| self.number(1, 2))??)
            }
            _ => {
                let date = (self.number(2, 2)?, self.number(2, 2)?);
                (!self.is_empty()).then_some(date)?
            }
        };
        NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)
    }

    /// Reads the fraction of a second, in microseconds, and whether that is all of it.
    fn fraction(&mut self) -> Option<(i64, bool)> {
        let (mut micros, mut unit, mut exact) = (i64::from(self.digit()?) * 100_000, 10_000, true);
        while let Some(digit) = self.digit() {
            micros += i64::from(digit) * unit;
            exact &= unit > 0 || digit == 0;
            unit /= 10;
        }
        Some((micros, exact))
    }

    /// Reads the rest as a zone: its offset in seconds, and whether nothing else was written.
    fn zone(&mut self) -> Option<(i64, bool)> {
        self.blanks();
        let sign = match self.0.first() {
            None => return Some((0, true)),
            Some(b'+') => 1,
            Some(b'-') => -1,
            Some(_) => {
                let plain = [&b"Z"[..], b"UTC", b"GMT"].iter().any(|name| self.0.eq_ignore_ascii_case(name));
                // Java's `Z[UTC]`.
                return (plain || self.take_of(b"Zz") && self.is_name()).then_some((0, plain));
            }
        };
        self.take_of(b"+-");
        let hours = self.number(1, 2)?;
        let colon = self.take(b':');
        let minutes = if colon || self.is_at_digit() { self.number(2, 2)? } else { 0 };
        let plain = self.is_empty();
        self.blanks();
        let offset = sign * (i64::from(hours) * 3_600 + i64::from(minutes) * 60);
        (hours < 24 && minutes < 60 && (plain || self.is_name())).then_some((offset, plain))
    }

    /// Whether the rest is the name of a zone, such as `[Europe/Paris]` or `CEST`. The offset before it gives the
    /// instant.
    fn is_name(&self) -> bool {
        match self.0 {
            [b'[', name @ .., b']'] => !name.is_empty() && name.iter().all(u8::is_ascii_graphic),
            name => (1..=5).contains(&name.len()) && name.iter().all(u8::is_ascii_alphabetic),
        }
    }
}

#[cfg(test)]
mod tests;
