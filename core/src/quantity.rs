//! Quantities as Kubernetes writes them, such as `1536Mi` and `0.5`: which of two is larger. Pure.

/// A number as `number / 10^9`, which is as precise as Kubernetes is; none if it is no quantity or too large for that.
pub(crate) fn nanos(text: &str) -> Option<i128> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    let mantissa: i128 = digits.parse().ok()?;
    let (base, exponent): (i128, i32) = match suffix {
        "" => (10, 0),
        "n" => (10, -9),
        "u" => (10, -6),
        "m" => (10, -3),
        "k" => (10, 3),
        "M" => (10, 6),
        "G" => (10, 9),
        "T" => (10, 12),
        "P" => (10, 15),
        "E" => (10, 18),
        "Ki" => (2, 10),
        "Mi" => (2, 20),
        "Gi" => (2, 30),
        "Ti" => (2, 40),
        "Pi" => (2, 50),
        "Ei" => (2, 60),
        _ => (10, suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    let (mut value, mut tens) = (mantissa, 9 - i32::try_from(fraction.len()).ok()?);
    if base == 2 {
        value = value.checked_mul(1_i128.checked_shl(u32::try_from(exponent).ok()?)?)?;
    } else {
        tens = tens.checked_add(exponent)?;
    }
    let power = 10_i128.checked_pow(tens.unsigned_abs());
    if tens >= 0 {
        value.checked_mul(power?)
    } else {
        // Kubernetes rounds up what is finer than it can say.
        Some(power.map_or(i128::from(value != 0), |power| value / power + i128::from(value % power != 0)))
    }
}

/// Whether two quantities are the same number.
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    one == other || nanos(one).is_some_and(|number| nanos(other) == Some(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_number_is_the_same_however_it_is_written() {
        for (one, other) in [
            ("1024Mi", "1Gi"),
            ("0.5", "500m"),
            ("+1", "1000m"),
            ("1.5Gi", "1536Mi"),
            ("1e3", "1k"),
            ("1E-3", "1m"),
            (".5", "500m"),
            ("2.", "2"),
            ("1Ei", "1152921504606846976"),
            ("0", "0Gi"),
            ("0.1n", "1n"),
        ] {
            assert!(is_same(one, other), "{one} {other}: {:?} {:?}", nanos(one), nanos(other));
        }
        for (one, other) in [("1G", "1Gi"), ("1", "1m"), ("1Mi", "x"), ("", "0"), (".", "0"), ("1e999", "1")]
        {
            assert!(!is_same(one, other), "{one} {other}");
        }
        assert!(is_same("odd", "odd"), "what cannot be read is compared as it is");
    }
}
