//! Numbers as people read them, the same in every table, message and page.

use crate::Footprint;
use sketchkv_cache::Forecast;
use sketchkv_engine::{Bound, ExpectedLoss};

/// Bytes with a binary unit: `512 B`, `1.5 KiB`, `98.4 MiB`; without decimals where it is a whole number of them.
pub fn bytes(bytes: u64) -> String {
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
    let digits = usize::from(value.fract() != 0.0);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A count with thousands separated: `98,362,432`.
pub fn count(count: u64) -> String {
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
pub fn rate(rate: f64) -> String {
    match rate {
        rate if rate < 9.995 => format!("{rate:.2}"),
        rate if rate < 99.95 => format!("{rate:.1}"),
        rate => format!("{rate:.0}"),
    }
}

/// A KL divergence to two digits that count: `0.1543`, `0.0021`, `3.1e-6`.
pub fn divergence(nats: f64) -> String {
    if nats == 0.0 || nats.abs() >= 5e-5 { format!("{nats:.4}") } else { format!("{nats:.1e}") }
}

/// A loss to be expected: `0.0143, at worst 0.0211`.
pub fn expected_loss(loss: &ExpectedLoss) -> String {
    let of = match loss.bound {
        Bound::About => String::new(),
        bound => format!("{} ", bound.word()),
    };
    format!("{of}{}, at worst {}", divergence(loss.kl), divergence(loss.worst))
}

/// A number to two decimals at most: `25`, `6.25`, `23.3`.
pub fn trimmed(value: f64) -> String {
    format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A share of 1 as a percentage: `96.6%`.
pub fn share(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}

/// A relative change as a signed percentage: `+1.5%`; what rounds to nothing has no sign of its own.
pub fn change(change: f64) -> String {
    let text = format!("{:+.1}%", 100.0 * change);
    if text == "-0.0%" { "+0.0%".into() } else { text }
}

/// The cap of a cache in percent of an uncompressed one, `25%`, with a mark where it took over 2 % more: `6.25% missed`;
/// `-` where there is none, or one in tokens.
pub fn asked(footprint: &Footprint) -> String {
    let Some(asked) = footprint.asked_percent else { return "-".to_owned() };
    format!("{}%{}", trimmed(asked), if footprint.missed() { " missed" } else { "" })
}

/// What a cap will mean: `at 4,096 tokens a head keeps 1,664, the newest 64 in 8 bits or more, others in 3 / 3 bits (keys / values); 5.9 MiB`.
pub fn forecast(forecast: &Forecast) -> String {
    let whole = |tokens: f64| count(tokens.round() as u64);
    let exact = if forecast.exact > 0.0 {
        format!("the newest {} in 8 bits or more, others", whole(forecast.exact))
    } else {
        "all".to_owned()
    };
    format!(
        "at {} tokens a head keeps {}, {exact} in {} / {} bits (keys / values); {}",
        count(forecast.tokens as u64),
        whole(forecast.kept),
        trimmed(forecast.key_bits),
        trimmed(forecast.value_bits),
        bytes(forecast.bytes as u64)
    )
}

/// A word of a shell's line, in quotes.
pub fn in_quotes(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A field of comma-separated values (RFC 4180).
pub fn csv_field(text: &str) -> String {
    let plain = !text.contains(['"', ',', '\n', '\r']);
    if plain { text.to_owned() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_the_largest_unit_that_leaves_one_or_more() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1 KiB");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes((1 << 20) - 1), "1.0 MiB");
        assert_eq!(bytes(98_362_432), "93.8 MiB");
        assert_eq!(bytes(u64::MAX), "16777216 TiB");
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

    #[test]
    fn percentages_and_changes() {
        assert_eq!([25.0, 6.25, 6.2499, 23.3, 100.0].map(trimmed), ["25", "6.25", "6.25", "23.3", "100"]);
        assert_eq!([0.966, 0.0].map(share), ["96.6%", "0.0%"]);
        assert_eq!([-0.0001, -0.0123, 6.016].map(change), ["+0.0%", "-1.2%", "+601.6%"]);
    }

    #[test]
    fn a_cap_that_was_missed_says_so() {
        let asked_of = |bytes, cap| asked(&crate::footprint::example(100, 1000, bytes, cap));
        assert_eq!(asked_of(240, Some(250)), "25%");
        assert_eq!(asked_of(233, Some(60)), "6% missed");
        assert_eq!(asked_of(1025, None), "-");
    }

    #[test]
    fn fields_with_commas_and_quotes_stay_one_field() {
        assert_eq!(csv_field("h2o@25%"), "h2o@25%");
        assert_eq!(csv_field("h2o(decay=0.9,recent=64)@25%"), "\"h2o(decay=0.9,recent=64)@25%\"");
        assert_eq!(csv_field("a \"b\""), "\"a \"\"b\"\"\"");
    }
}
