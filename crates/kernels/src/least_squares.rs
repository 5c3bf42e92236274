//! Linear least squares by their normal equations, in f64.

/// Adds `a`·x to `sums`.
pub fn accumulate(sums: &mut [f64], a: f64, x: &[f32]) {
    sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += a * f64::from(*x));
}

/// Adds λ·1 to N, `[n][n]`, where λ is `ridge` times the mean of the diagonal.
///
/// # Panics
/// When there are not as many rows as columns, as in [`solve`].
pub fn damp(normal: &mut [f64], ridge: f64) {
    let n = order(normal);
    let lambda = (0..n).map(|i| normal[i * n + i]).sum::<f64>() / n as f64 * ridge;
    (0..n).for_each(|i| normal[i * n + i] += lambda);
}

/// Solves N·x = b in place for all columns of b, `[n][columns]`, and a positive definite N, of which the lower triangle is given,
/// by Cholesky's decomposition, which takes N's place. Says whether it is one; where it is not, b stays as it is.
pub fn solve(normal: &mut [f64], b: &mut [f64]) -> bool {
    let n = order(normal);
    for i in 0..n {
        let (above, row) = normal.split_at_mut(i * n);
        for j in 0..i {
            let other = &above[j * n..][..j + 1];
            let dot: f64 = row[..j].iter().zip(other).map(|(a, b)| a * b).sum();
            row[j] = (row[j] - dot) / other[j];
        }
        let square = row[i] - row[..i].iter().map(|a| a * a).sum::<f64>();
        if square.is_nan() || square <= 0.0 {
            return false;
        }
        row[i] = square.sqrt();
    }
    let columns = b.len() / n;
    for i in 0..n {
        let (before, x) = b.split_at_mut(i * columns);
        let of_rows = (0..i).map(|j| (normal[i * n + j], &before[j * columns..]));
        eliminate(&mut x[..columns], of_rows, normal[i * n + i]);
    }
    for i in (0..n).rev() {
        let (x, after) = b.split_at_mut((i + 1) * columns);
        let of_rows = (i + 1..n).map(|j| (normal[j * n + i], &after[(j - i - 1) * columns..]));
        eliminate(&mut x[i * columns..], of_rows, normal[i * n + i]);
    }
    true
}

/// n of `[n][n]`.
fn order(normal: &[f64]) -> usize {
    let n = normal.len().isqrt();
    assert_eq!(n * n, normal.len(), "a matrix of as many rows as columns");
    n
}

/// (x − Σ factor·row) / `pivot`
fn eliminate<'a>(x: &mut [f64], rows: impl Iterator<Item = (f64, &'a [f64])>, pivot: f64) {
    for (factor, row) in rows {
        x.iter_mut().zip(row).for_each(|(x, y)| *x -= factor * y);
    }
    x.iter_mut().for_each(|x| *x /= pivot);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solves_what_has_a_solution() {
        // N = A·Aᵀ of A = [[2, 0, 0], [1, 3, 0], [-1, 2, 1]], and two columns.
        let n = vec![4.0, 0.0, 0.0, 2.0, 10.0, 0.0, -2.0, 5.0, 6.0];
        let x = [[1.0, 0.5], [-2.0, 4.0], [3.0, -1.0]];
        let full = |i: usize, j: usize| n[i.max(j) * 3 + i.min(j)];
        let ridge = 0.01;
        let right = |i: usize, c: usize| {
            (0..3).map(|j| full(i, j) * x[j][c]).sum::<f64>() + 20.0 / 3.0 * ridge * x[i][c]
        };
        let mut solved: Vec<f64> = (0..6).map(|at| right(at / 2, at % 2)).collect();
        let mut damped = n.clone();
        damp(&mut damped, ridge);
        assert!(solve(&mut damped, &mut solved));
        assert!(solved.iter().zip(x.as_flattened()).all(|(a, b)| (a - b).abs() < 1e-12), "{solved:?}");
        let mut untouched = [1.0; 3];
        assert!(!solve(&mut [0.0; 9], &mut untouched));
        assert_eq!(untouched, [1.0; 3]);
    }
}
