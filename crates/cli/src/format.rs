//! Numbers as people read them.

/// Bytes with a binary unit: `512 B`, `1.5 KiB`, `98.4 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would print as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A count with thousands separated: `98,362,432`.
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate to three digits or so: `0.52`, `17.3`, `293`.
pub(crate) fn rate(rate: f64) -> String {
    match rate {
        rate if rate < 9.995 => format!("{rate:.2}"),
        rate if rate < 99.95 => format!("{rate:.1}"),
        rate => format!("{rate:.0}"),
    }
}

/// A KL divergence to two digits that count: `0.1543`, `0.0021`, `3.1e-6`.
pub(crate) fn divergence(nats: f64) -> String {
    if nats == 0.0 || nats.abs() >= 5e-5 { format!("{nats:.4}") } else { format!("{nats:.1e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_the_largest_unit_that_leaves_one_or_more() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes((1 << 20) - 1), "1.0 MiB");
        assert_eq!(bytes(98_362_432), "93.8 MiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
    }

    #[test]
    fn counts_are_grouped_by_three() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1000), "1,000");
        assert_eq!(count(98_362_432), "98,362,432");
    }

    #[test]
    fn rates_keep_about_three_digits() {
        assert_eq!(rate(0.5), "0.50");
        assert_eq!(rate(9.999), "10.0");
        assert_eq!(rate(99.96), "100");
        assert_eq!(rate(293.4), "293");
    }

    #[test]
    fn divergences_keep_two_digits() {
        assert_eq!(divergence(0.0), "0.0000");
        assert_eq!(divergence(1.8e-7), "1.8e-7");
        assert_eq!(divergence(0.00005), "0.0001");
        assert_eq!(divergence(1.7136), "1.7136");
    }
}
