//! Numbers that name a time.

use std::time::{Duration, SystemTime};

use super::date;

/// A number of seconds, without a sign, with or without a fraction.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (digits(whole)?, digits(fraction)?),
        None => (digits(text)?, ""),
    };
    let nanos = fraction.get(..9).unwrap_or(fraction);
    let scale = 10_u32.checked_pow(9_u32.checked_sub(u32::try_from(nanos.len()).ok()?)?)?;
    let nanos = match nanos {
        "" => 0,
        nanos => nanos.parse::<u32>().ok()?.checked_mul(scale)?,
    };
    Some(Duration::new(whole.parse().ok()?, nanos))
}

/// A time that a number of seconds can mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time {
    In(Duration),
    At(SystemTime),
}

/// Reads a number by its size: milliseconds since 1970, seconds since 1970, or seconds from now. `None` where no clock
/// reaches it.
pub(super) fn time(text: &str) -> Option<Time> {
    let number = seconds(text)?;
    if number > LARGEST_EPOCH {
        return date::from_epoch(number / 1_000).map(Time::At);
    }
    if number > LARGEST_DELTA {
        return date::from_epoch(number).map(Time::At);
    }
    Some(Time::In(number))
}

fn digits(text: &str) -> Option<&str> {
    let all = text.bytes().all(|byte| byte.is_ascii_digit());
    (all && !text.is_empty()).then_some(text)
}

/// 31 years as a delta, September 2001 as an epoch.
const LARGEST_DELTA: Duration = Duration::from_secs(1_000_000_000);
/// The year 33658 as an epoch in seconds, September 2001 in milliseconds.
const LARGEST_EPOCH: Duration = Duration::from_secs(1_000_000_000_000);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_a_fraction_or_none() {
        for (text, millis) in [
            ("0", 0),
            ("12", 12_000),
            ("007", 7_000),
            ("1.5", 1_500),
            ("0.25", 250),
            ("2.000", 2_000),
            ("3.1000000009", 3_100),
        ] {
            let read = seconds(text).unwrap();
            assert_eq!(read.as_millis(), millis, "{text}");
        }
        assert_eq!(seconds("1.000000001"), Some(Duration::new(1, 1)));
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "1,5",
            "1.2.3",
            "0x1",
            "inf",
            "NaN",
            " 1",
            "\u{b2}",
            "18446744073709551616",
            "1._",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn the_size_of_a_number_says_what_it_means() {
        let epoch = |millis| {
            Some(Time::At(
                SystemTime::UNIX_EPOCH + Duration::from_millis(millis),
            ))
        };
        assert_eq!(time("12.5"), Some(Time::In(Duration::from_millis(12_500))));
        assert_eq!(time("1000000000"), Some(Time::In(LARGEST_DELTA)));
        assert_eq!(time("1743441608"), epoch(1_743_441_608_000));
        assert_eq!(time("1743441608.25"), epoch(1_743_441_608_250));
        assert_eq!(time("1743441608250"), epoch(1_743_441_608_250));
        let far = time("18446744073709551615");
        assert_eq!(
            far,
            epoch(u64::MAX),
            "a clock reaches this, in milliseconds"
        );
    }
}
