/// Attention of some queries over some tokens, before it is divided by its sum: what pieces of an attention are
/// merged from.
#[derive(Debug, Clone, Default)]
pub struct Partial {
    /// Largest logit per query; −∞ when there was no token.
    pub max: Vec<f32>,
    /// Σ e^(logit − max) per query.
    pub sum: Vec<f32>,
    /// Σ e^(logit − max)·value, `[query][dim]`.
    pub acc: Vec<f32>,
}

impl Partial {
    /// Starts over for `queries` queries of width `dim`.
    pub fn reset(&mut self, queries: usize, dim: usize) {
        self.max.clear();
        self.max.resize(queries, f32::NEG_INFINITY);
        self.sum.clear();
        self.sum.resize(queries, 0.0);
        self.acc.clear();
        self.acc.resize(queries * dim, 0.0);
    }

    /// Adds tokens to the attention of one query: their largest logit, Σ e^(logit − max) and Σ e^(logit − max)·value.
    pub fn add(&mut self, query: usize, max: f32, sum: f32, acc: &[f32]) {
        if max == f32::NEG_INFINITY {
            return;
        }
        let dim = acc.len();
        let own = &mut self.acc[query * dim..][..dim];
        if max > self.max[query] {
            let scale = (self.max[query] - max).exp();
            self.sum[query] *= scale;
            own.iter_mut().for_each(|x| *x *= scale);
            self.max[query] = max;
        }
        let scale = (max - self.max[query]).exp();
        self.sum[query] += sum * scale;
        own.iter_mut().zip(acc).for_each(|(x, a)| *x += a * scale);
    }

    /// Cuts every row of `acc` from `dim` numbers to the first `width`.
    pub(crate) fn cut(&mut self, dim: usize, width: usize) {
        if dim != width {
            for row in 1..self.max.len() {
                self.acc.copy_within(row * dim..row * dim + width, row * width);
            }
            self.acc.truncate(self.max.len() * width);
        }
    }
}

/// a·b, summed in eight lanes, which a compiler keeps in registers.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut lanes = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        lanes.iter_mut().zip(a.iter().zip(b)).for_each(|(lane, (a, b))| *lane += a * b);
    }
    lanes.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}
