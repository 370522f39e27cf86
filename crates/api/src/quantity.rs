//! `resource.Quantity`: amounts such as `500m`, `512Mi`, `1e3`.
//!
//! Source of the rules: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.

use std::fmt;
use std::str::FromStr;

/// An amount, exact to a billionth, in -2^63..2^63 whole units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity {
    nanos: i128,
}

/// A text that is no quantity. Its message is the one that Kubernetes gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct ParseQuantityError;

const NANO: i128 = 1_000_000_000;

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0 };

    /// A number of whole units: bytes, cores, pods.
    pub const fn from_units(units: i64) -> Self {
        Self { nanos: units as i128 * NANO }
    }

    /// A number of thousandths: millicores.
    pub const fn from_millis(millis: i64) -> Self {
        Self { nanos: millis as i128 * (NANO / 1000) }
    }

    /// Whole units, rounded up.
    pub fn units(self) -> i64 {
        clamp(div_ceil(self.nanos, NANO))
    }

    /// Thousandths, rounded up.
    pub fn millis(self) -> i64 {
        clamp(div_ceil(self.nanos, NANO / 1000))
    }

    /// Whether it is below zero.
    pub const fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether it is zero.
    pub const fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// The sum.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self { nanos: self.nanos.saturating_add(other.nanos) }
    }

    /// The difference.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self { nanos: self.nanos.saturating_sub(other.nanos) }
    }

    /// The larger of two.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Ord::max(self, other)
    }

    /// Rewrites a quantity as Kubernetes stores it: the same suffix family with the largest suffix that leaves a whole number
    /// (`1000m` becomes `1`, `1024Mi` becomes `1Gi`).
    pub fn canonical(text: &str) -> Result<String, ParseQuantityError> {
        let quantity: Self = text.parse()?;
        let suffix = text.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
        Ok(if suffix.ends_with('i') {
            quantity.format_binary()
        } else if suffix.starts_with(['e', 'E']) && suffix.len() > 1 {
            quantity.format_exponent()
        } else {
            quantity.format_decimal()
        })
    }

    fn format_binary(self) -> String {
        if self.nanos % NANO != 0 || self.nanos.abs() < 1024 * NANO {
            return self.format_decimal();
        }
        let mut number = self.nanos / NANO;
        let mut index = 0;
        while number != 0 && number % 1024 == 0 && index < 6 {
            number /= 1024;
            index += 1;
        }
        format!("{number}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][index])
    }

    fn format_decimal(self) -> String {
        if self.nanos == 0 {
            return "0".into();
        }
        let suffixes = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
        let (number, index) = self.largest_power_of_thousand();
        format!("{number}{}", suffixes[index])
    }

    fn format_exponent(self) -> String {
        if self.nanos == 0 {
            return "0".into();
        }
        let (number, index) = self.largest_power_of_thousand();
        let exponent = index as i32 * 3 - 9;
        if exponent == 0 { number.to_string() } else { format!("{number}e{exponent}") }
    }

    fn largest_power_of_thousand(self) -> (i128, usize) {
        let (mut number, mut index) = (self.nanos, 0);
        while number % 1000 == 0 && index < 9 {
            number /= 1000;
            index += 1;
        }
        (number, index)
    }
}

fn div_ceil(number: i128, by: i128) -> i128 {
    number.div_euclid(by) + i128::from(number.rem_euclid(by) != 0)
}

fn clamp(number: i128) -> i64 {
    i64::try_from(number).unwrap_or(if number < 0 { i64::MIN } else { i64::MAX })
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (digits, suffix) = rest.split_at(end);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(ParseQuantityError);
        }
        let (multiplier, divisor) = scale(suffix).ok_or(ParseQuantityError)?;
        let mantissa = format!("{whole}{fraction}");
        let mantissa: i128 = mantissa.trim_start_matches('0').parse().or_else(|error: std::num::ParseIntError| {
            if *error.kind() == std::num::IntErrorKind::Empty { Ok(0) } else { Err(ParseQuantityError) }
        })?;
        let fraction_scale = 10_i128.checked_pow(u32::try_from(fraction.len()).map_err(|_| ParseQuantityError)?);
        let denominator = fraction_scale.and_then(|scale| scale.checked_mul(divisor)).ok_or(ParseQuantityError)?;
        // Too large is capped, too fine is rounded away from zero, as Kubernetes does.
        let limit = i128::from(i64::MAX) * NANO;
        let nanos = mantissa
            .checked_mul(multiplier)
            .and_then(|n| n.checked_mul(NANO))
            .map_or(limit, |n| div_ceil(n, denominator))
            .min(limit);
        Ok(Self { nanos: if negative { -nanos } else { nanos } })
    }
}

fn scale(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| Some((1024_i128.pow(power), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "k" => Some((1000, 1)),
        "M" => Some((1_000_000, 1)),
        "G" => Some((1_000_000_000, 1)),
        "T" => Some((1_000_000_000_000, 1)),
        "P" => Some((1_000_000_000_000_000, 1)),
        "E" => Some((1_000_000_000_000_000_000, 1)),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
            Some(if exponent < 0 { (1, power) } else { (power, 1) })
        }
    }
}

/// The canonical decimal form.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.format_decimal())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_rewritten_as_kubernetes_does() {
        for (text, canonical) in [
            ("500m", "500m"),
            ("1000m", "1"),
            ("512Mi", "512Mi"),
            ("1024Mi", "1Gi"),
            ("0.5", "500m"),
            ("1e3", "1e3"),
            ("128974848", "128974848"),
            ("129e6", "129e6"),
            ("129M", "129M"),
            ("123Mi", "123Mi"),
            ("0", "0"),
            ("0Mi", "0"),
            ("100Ki", "100Ki"),
            ("1.5Gi", "1536Mi"),
            ("-1", "-1"),
            ("2000k", "2M"),
        ] {
            assert_eq!(Quantity::canonical(text).as_deref(), Ok(canonical), "{text}");
        }
        for text in ["", "1x", "Mi", "1.2.3", "one", "1 Mi", "1mm"] {
            assert_eq!(text.parse::<Quantity>(), Err(ParseQuantityError), "{text}");
        }
        assert_eq!("1500m".parse::<Quantity>().unwrap().units(), 2);
        assert_eq!("512Mi".parse::<Quantity>().unwrap().units(), 512 << 20);
    }
}
