//! Dates and times as numbers that order as PostgreSQL orders them.
//!
//! Read is what PostgreSQL prints with `DateStyle = ISO` and `TimeZone = UTC`: `2026-01-31`, `0044-03-15 BC`,
//! `2026-01-31 12:00:00.25+00`, `infinity`.

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// What PostgreSQL's types reach, in days from 2000-01-01: 4714-11-24 BC, 5874897-12-31 and 294276-12-31
/// (`datatype/timestamp.h`). Microseconds from 1970 would not fit 64 bits.
const FIRST_DAY: i64 = -2_451_545;
const LAST_DATE: i64 = 2_145_031_948;
const LAST_TIMESTAMP: i64 = 106_751_982;

/// A date's days, counted from 2000-01-01. None if it is no date.
pub(super) fn date(text: &str) -> Option<i64> {
    if let Some(end) = endless(text) {
        return Some(end);
    }
    let day = match text.strip_suffix(" BC") {
        Some(text) => days(text, true),
        None => days(text, false),
    };
    day.filter(|d| (FIRST_DAY..=LAST_DATE).contains(d))
}

/// Microseconds since midnight; PostgreSQL has 24:00:00.
pub(super) fn time(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, ':');
    let (hour, minute) = (two(parts.next()?)?, two(parts.next()?)?);
    let second = parts.next()?;
    let (second, fraction) = second.split_once('.').unwrap_or((second, "0"));
    let (second, micros) = (two(second)?, micros(fraction)?);
    let all = ((hour * 60 + minute) * 60 + second) * 1_000_000 + micros;
    (minute < 60 && second < 60 && all <= DAY).then_some(all)
}

/// Microseconds since 2000.
pub(super) fn timestamp(text: &str) -> Option<i64> {
    if let Some(end) = endless(text) {
        return Some(end);
    }
    let (text, before) = match text.strip_suffix(" BC") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let (day, clock) = text.split_once(' ')?;
    let day = days(day, before).filter(|d| (FIRST_DAY..=LAST_TIMESTAMP).contains(d))?;
    // A timestamp never prints 24:00:00.
    let clock = time(clock).filter(|t| *t < DAY)?;
    day.checked_mul(DAY)?.checked_add(clock)
}

/// Microseconds since 2000 in UTC, of a text with an offset: `+00`, `-03:30`.
pub(super) fn timestamptz(text: &str) -> Option<i64> {
    if let Some(end) = endless(text) {
        return Some(end);
    }
    let (text, era) = match text.strip_suffix(" BC") {
        Some(text) => (text, " BC"),
        None => (text, ""),
    };
    let clock = text.find(' ')?;
    let at = clock + text[clock..].find(['+', '-'])?;
    let (local, offset) = text.split_at(at);
    let mut parts = offset[1..].split(':');
    let hours = two(parts.next()?)?;
    let minutes = parts.next().map_or(Some(0), two)?;
    if parts.next().is_some() || hours > 15 || minutes > 59 {
        return None;
    }
    let offset = (hours * 60 + minutes) * 60_000_000 * if offset.starts_with('-') { -1 } else { 1 };
    timestamp(&format!("{local}{era}"))?.checked_sub(offset)
}

/// What people write, `T` and `Z` included, as PostgreSQL prints it; None if `read` does not understand it.
pub(super) fn plain(given: &str, read: impl Fn(&str) -> Option<i64>) -> Option<String> {
    let text = match given.as_bytes().get(10) {
        Some(b'T') => format!("{} {}", &given[..10], &given[11..]),
        _ => given.to_owned(),
    };
    let text = match text.strip_suffix('Z') {
        Some(text) => format!("{text}+00"),
        None => text,
    };
    read(&text).map(|_| text)
}

fn endless(text: &str) -> Option<i64> {
    match text {
        "infinity" => Some(i64::MAX),
        "-infinity" => Some(i64::MIN),
        _ => None,
    }
}

fn number(text: &str) -> Option<i64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn two(text: &str) -> Option<i64> {
    (text.len() == 2).then(|| number(text))?
}

/// One to six digits after the point. PostgreSQL would round a seventh.
fn micros(fraction: &str) -> Option<i64> {
    (fraction.len() <= 6).then(|| number(fraction))?.map(|n| {
        let missing = 6 - fraction.len() as u32;
        n * 10_i64.pow(missing)
    })
}

/// Days since 2000 in the proleptic Gregorian calendar. There is no year 0: `0001 BC` precedes `0001`.
fn days(text: &str, before: bool) -> Option<i64> {
    let mut parts = text.split('-');
    let year = parts.next()?;
    let (month, day) = (two(parts.next()?)?, two(parts.next()?)?);
    if parts.next().is_some() || !(4..=7).contains(&year.len()) {
        return None;
    }
    let year = match (number(year)?, before) {
        (0, _) => return None,
        (year, false) => year,
        (year, true) => 1 - year,
    };
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // Howard Hinnant's days_from_civil: years begin in March, so that the leap day is the last.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 730_425)
}
