//! Figures as people read them: three digits and a decimal unit.
//! Must not round what machines read: `results.json` and `rounds.csv` keep every digit.

/// Stands where there is no figure: a failed run, a ratio over zero.
pub(crate) const NONE: &str = "–";

const BYTES: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
const FLOPS: [&str; 8] = ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP", "ZFLOP"];

/// `413492` as `413 kB`.
pub(crate) fn bytes(value: f64) -> String {
    scaled(value, &BYTES)
}

/// `3.2e12` as `3.20 TFLOP`.
pub(crate) fn flops(value: f64) -> String {
    scaled(value, &FLOPS)
}

/// A round number on an axis: `10.0 MB` as `10 MB`, and zero without a unit.
pub(crate) fn tick(figure: &str) -> String {
    let (digits, unit) = figure.split_once(' ').unwrap_or((figure, ""));
    let digits = if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
    if digits == "0" { digits.into() } else { format!("{digits} {unit}").trim_end().into() }
}

/// The text with each unit tied to its figure, so that no line breaks between them.
pub(crate) fn unbroken(text: &str) -> String {
    let is_unit = |word: &str| {
        let word = word.trim_end_matches([',', '.', ')', ';']);
        word == "%" || BYTES.contains(&word) || FLOPS.contains(&word)
    };
    let mut words = text.split(' ');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |text, word| text + if is_unit(word) { "\u{a0}" } else { " " } + word)
}

/// `0.8604` as `86.0 %`.
pub(crate) fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1} %", share * 100.0) } else { NONE.into() }
}

/// A score or a loss, three decimals.
pub(crate) fn decimal(value: f64) -> String {
    if !value.is_finite() {
        return NONE.into();
    }
    if value.abs() < 1e5 { format!("{value:.3}") } else { format!("{value:.2e}") }
}

/// `214.0` as `3 min 34 s`; tenths below a minute.
pub(crate) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return NONE.into();
    }
    if seconds < 59.95 {
        // An empty sum is minus zero; adding zero takes the sign away.
        return format!("{:.1} s", seconds + 0.0);
    }
    let whole = seconds.round() as u64;
    let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours == 0 { format!("{minutes} min {rest:02} s") } else { format!("{} h {minutes:02} min", count(hours)) }
}

/// `6046` as `6,046`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Three significant digits in the unit that leaves one to three of them before the point.
fn scaled(value: f64, units: &[&str]) -> String {
    if !value.is_finite() || value < 0.0 {
        return NONE.into();
    }
    // An empty sum is minus zero; adding zero takes the sign away.
    let mut scaled = value + 0.0;
    let mut unit = 0;
    // 999.5 rounds to 1000 in three digits, so it belongs to the next unit already.
    while scaled >= 999.5 && unit + 1 < units.len() {
        scaled /= 1000.0;
        unit += 1;
    }
    if scaled >= 999_500.0 {
        return format!("{scaled:.2e} {}", units[unit]);
    }
    let decimals = match scaled {
        _ if unit == 0 => 0,
        small if small < 9.995 => 2,
        middle if middle < 99.95 => 1,
        _ => 0,
    };
    format!("{scaled:.decimals$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits_and_a_decimal_unit() {
        let cases = [
            (0.0, "0 B"),
            (-0.0, "0 B"),
            (999.0, "999 B"),
            (1000.0, "1.00 kB"),
            (413_492.0, "413 kB"),
            (999_600.0, "1.00 MB"),
        ];
        for (value, text) in cases {
            assert_eq!(bytes(value), text);
        }
        assert_eq!(bytes(u64::MAX as f64), "18.4 EB");
    }

    #[test]
    fn flops_past_the_last_unit_stay_in_it() {
        assert_eq!(flops(3.2e12), "3.20 TFLOP");
        assert_eq!(flops(5e25), "50000 ZFLOP");
        assert_eq!(flops(1e300), "1.00e279 ZFLOP");
    }

    #[test]
    fn round_numbers_on_an_axis_lose_their_zeros() {
        assert_eq!(
            [tick("10.0 MB"), tick("5.00 TFLOP"), tick("500 kB"), tick("0 B")],
            ["10 MB", "5 TFLOP", "500 kB", "0"]
        );
    }

    #[test]
    fn what_is_not_a_number_is_a_dash() {
        assert_eq!([bytes(f64::NAN), percent(f64::NAN), decimal(f64::INFINITY), duration(-1.0)], [NONE; 4]);
    }

    #[test]
    fn durations_change_unit_at_a_minute_and_an_hour() {
        assert_eq!([duration(59.94), duration(59.96), duration(214.2)], ["59.9 s", "1 min 00 s", "3 min 34 s"]);
        assert_eq!([duration(7500.0), duration(-0.0)], ["2 h 05 min", "0.0 s"]);
    }

    #[test]
    fn a_unit_stays_with_its_figure() {
        assert_eq!(unbroken("best (87.0 %), 76.8 kB)."), "best (87.0\u{a0}%), 76.8\u{a0}kB).");
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([count(0), count(999), count(6046), count(1_000_000)], ["0", "999", "6,046", "1,000,000"]);
    }
}
