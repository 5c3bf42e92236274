//! Medians of a few values: what turns several noisy rows into one estimate that few of them can spoil.

use crate::counter::SignedCounter;
use crate::table::MAX_DEPTH;

/// The median; the middle of the two middle values where their number is even. Reorders `values`.
pub(crate) fn median<C: SignedCounter>(values: &mut [C]) -> C {
    match values {
        [] => C::default(),
        [a] => *a,
        [a, b] => a.midpoint(*b),
        [a, b, c] => {
            let (low, high) = if a < b { (*a, *b) } else { (*b, *a) };
            if *c < low {
                low
            } else if *c < high {
                *c
            } else {
                high
            }
        }
        _ => {
            let middle = values.len() / 2;
            let even = values.len().is_multiple_of(2);
            let (below, &mut upper, _) = values.select_nth_unstable_by(middle, C::order);
            let lower = below.iter().copied().max_by(C::order);
            match lower {
                Some(lower) if even => lower.midpoint(upper),
                _ => upper,
            }
        }
    }
}

/// The median of what every row says of the whole stream; 0 where there is no row.
pub(crate) fn median_over_rows(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n => f64::midpoint(values[(n - 1) / 2], values[n / 2]),
    }
}

/// `out[j] = median over r of signs[r] · rows[r][j]`: the coordinatewise median of signed vectors.
///
/// Up to five rows by the exchanges of a sorting network, which a compiler turns into vector minima and maxima.
pub(crate) fn median_of_rows(rows: &[&[f32]], signs: &[f32], out: &mut [f32]) {
    assert_eq!(rows.len(), signs.len());
    assert!(rows.iter().all(|row| row.len() == out.len()));
    let ordered = |a: f32, b: f32| (if a < b { a } else { b }, if a < b { b } else { a });
    match (rows, signs) {
        ([], _) => out.fill(0.0),
        ([a], [sa]) => {
            for (out, a) in out.iter_mut().zip(*a) {
                *out = sa * a;
            }
        }
        ([a, b], [sa, sb]) => {
            for (j, out) in out.iter_mut().enumerate() {
                *out = 0.5 * (sa * a[j] + sb * b[j]);
            }
        }
        ([a, b, c], [sa, sb, sc]) => {
            for (j, out) in out.iter_mut().enumerate() {
                let (low, high) = ordered(sa * a[j], sb * b[j]);
                *out = ordered(low, ordered(high, sc * c[j]).0).1;
            }
        }
        ([a, b, c, d], [sa, sb, sc, sd]) => {
            for (j, out) in out.iter_mut().enumerate() {
                let (ab, cd) = (ordered(sa * a[j], sb * b[j]), ordered(sc * c[j], sd * d[j]));
                *out = 0.5 * (ordered(ab.0, cd.0).1 + ordered(ab.1, cd.1).0);
            }
        }
        ([a, b, c, d, e], [sa, sb, sc, sd, se]) => {
            for (j, out) in out.iter_mut().enumerate() {
                // Of four values the two middle ones; the median of five is the median of these and the fifth.
                let (ab, cd) = (ordered(sa * a[j], sb * b[j]), ordered(sc * c[j], sd * d[j]));
                let (low, high) = ordered(ordered(ab.0, cd.0).1, ordered(ab.1, cd.1).0);
                *out = ordered(low, ordered(high, se * e[j]).0).1;
            }
        }
        _ => {
            let mut values = [0.0; MAX_DEPTH];
            for (j, out) in out.iter_mut().enumerate() {
                for ((value, row), sign) in values.iter_mut().zip(rows).zip(signs) {
                    *value = sign * row[j];
                }
                *out = median(&mut values[..rows.len()]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn by_sorting(values: &[f32]) -> f32 {
        let mut values = values.to_vec();
        values.sort_by(f32::total_cmp);
        let middle = values.len() / 2;
        if values.len() % 2 == 1 { values[middle] } else { f32::midpoint(values[middle - 1], values[middle]) }
    }

    #[test]
    fn both_medians_are_the_middle_of_the_sorted_values() {
        let mut random = Random::new(1, 1);
        for depth in 1..=9 {
            for _ in 0..200 {
                // Small integers, so that ties occur.
                let rows: Vec<[f32; 5]> =
                    (0..depth).map(|_| [(); 5].map(|()| (random.next_u64() % 7) as f32 - 3.0)).collect();
                let signs: Vec<f32> =
                    (0..depth).map(|_| [1.0, -1.0][random.next_u64() as usize % 2]).collect();
                let slices: Vec<&[f32]> = rows.iter().map(|row| &row[..]).collect();
                let mut out = [0.0; 5];
                median_of_rows(&slices, &signs, &mut out);
                for (j, out) in out.iter().enumerate() {
                    let mut values: Vec<f32> =
                        rows.iter().zip(&signs).map(|(row, sign)| sign * row[j]).collect();
                    let expected = by_sorting(&values);
                    assert_eq!(*out, expected, "{values:?}");
                    assert_eq!(median(&mut values), expected);
                }
            }
        }
    }
}
