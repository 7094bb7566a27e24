//! Figures: how far two tensors are apart, and what the numbers of each are like, piece by piece.
//!
//! Sums are kept in `f64`, of short blocks first and then of those, so that they are as good as sums by
//! pairs; a spread is merged from those of its parts (Chan, Golub and LeVeque, 1979) and never is a
//! difference of large sums. Numbers that are none, or infinite, are counted and left out of the rest.

use super::report::{Figures, Spread};

/// Numbers that are looked at together: both sides fit into the nearest cache of a core.
pub(super) const BLOCK_ELEMENTS: usize = 2_048;

/// Sums that grow beside each other, so that a processor can add several numbers at once.
const LANES: usize = 8;

/// Mean and spread of some numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Moments {
    /// Finite ones.
    count: u64,
    mean: f64,
    /// Sum of the squares of their distances from the mean.
    squares: f64,
    nan: u64,
    infinite: u64,
}

/// What is known of two tensors of as many elements.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Distance {
    before: Moments,
    after: Moments,
    /// Elements that are finite on both sides: the sums below are of them.
    compared: u64,
    square_before: f64,
    square_after: f64,
    product: f64,
    square_difference: f64,
    difference_max: f64,
}

/// The sum of `of` over numbers by their index.
fn sum(count: usize, of: impl Fn(usize) -> f64) -> f64 {
    let mut lanes = [0.0; LANES];
    let whole = count - count % LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += of(start + lane);
        }
    }
    let rest: f64 = (whole..count).map(&of).sum();
    lanes.iter().sum::<f64>() + rest
}

// Counts of elements: 2^53 of them are more than any disk holds.
#[allow(clippy::cast_precision_loss)]
fn float(count: u64) -> f64 {
    count as f64
}

impl Moments {
    /// Those of a block.
    fn of(values: &[f64]) -> Self {
        if values.iter().all(|value| value.is_finite()) {
            return Self::of_finite(values);
        }
        let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        let nan = values.iter().filter(|value| value.is_nan()).count();
        let infinite = values.len() - finite.len() - nan;
        Self { nan: nan as u64, infinite: infinite as u64, ..Self::of_finite(&finite) }
    }

    fn of_finite(values: &[f64]) -> Self {
        let count = values.len() as u64;
        if count == 0 {
            return Self::default();
        }
        let mean = sum(values.len(), |at| values[at]) / float(count);
        let squares = sum(values.len(), |at| (values[at] - mean) * (values[at] - mean));
        Self { count, mean, squares, ..Self::default() }
    }

    fn merge(&mut self, other: &Self) {
        let count = self.count + other.count;
        if other.count != 0 {
            let (whole, part) = (float(count), float(other.count));
            let step = other.mean - self.mean;
            self.mean += step * part / whole;
            self.squares += other.squares + step * step * float(self.count) * part / whole;
            self.count = count;
        }
        self.nan += other.nan;
        self.infinite += other.infinite;
    }

    fn report(&self) -> Spread {
        let some = self.count != 0;
        let mean = finite(some.then_some(self.mean));
        let std = finite(some.then(|| (self.squares / float(self.count)).sqrt()));
        Spread { mean, std, nan: self.nan, infinite: self.infinite }
    }
}

impl Distance {
    /// Takes in a block of elements of both sides.
    pub fn add(&mut self, before: &[f64], after: &[f64]) {
        assert_eq!(before.len(), after.len(), "element for element");
        let (of_before, of_after) = (Moments::of(before), Moments::of(after));
        let strange = |of: &Moments| of.nan + of.infinite;
        if strange(&of_before) + strange(&of_after) == 0 {
            self.add_finite(before, after);
        } else {
            let both = before.iter().zip(after).filter(|(a, b)| a.is_finite() && b.is_finite());
            let (before, after): (Vec<f64>, Vec<f64>) = both.unzip();
            self.add_finite(&before, &after);
        }
        self.before.merge(&of_before);
        self.after.merge(&of_after);
    }

    /// Takes in a block that is the same on both sides.
    pub fn add_same(&mut self, values: &[f64]) {
        let of = Moments::of(values);
        self.before.merge(&of);
        self.after.merge(&of);
        self.compared += of.count;
        let finite = |at: usize| if values[at].is_finite() { values[at] } else { 0.0 };
        let squares = sum(values.len(), |at| finite(at) * finite(at));
        self.square_before += squares;
        self.square_after += squares;
        self.product += squares;
    }

    fn add_finite(&mut self, before: &[f64], after: &[f64]) {
        let count = before.len();
        let difference = |at: usize| after[at] - before[at];
        self.compared += count as u64;
        self.square_before += sum(count, |at| before[at] * before[at]);
        self.square_after += sum(count, |at| after[at] * after[at]);
        self.product += sum(count, |at| before[at] * after[at]);
        self.square_difference += sum(count, |at| difference(at) * difference(at));
        let largest = (0..count).map(|at| difference(at).abs()).fold(0.0, f64::max);
        self.difference_max = self.difference_max.max(largest);
    }

    /// Takes in what is known of other elements of the same tensors.
    pub fn merge(&mut self, other: &Self) {
        self.before.merge(&other.before);
        self.after.merge(&other.after);
        self.compared += other.compared;
        self.square_before += other.square_before;
        self.square_after += other.square_after;
        self.product += other.product;
        self.square_difference += other.square_difference;
        self.difference_max = self.difference_max.max(other.difference_max);
    }

    /// The length of the difference in lengths of what was before; `None` where that is zero.
    pub fn relative_l2(&self) -> Option<f64> {
        finite(Some((self.square_difference / self.square_before).sqrt()))
    }

    /// The largest difference of two elements; `None` where none were compared.
    pub fn max_abs(&self) -> Option<f64> {
        finite((self.compared != 0).then_some(self.difference_max))
    }

    pub fn report(&self) -> Figures {
        let lengths = self.square_before.sqrt() * self.square_after.sqrt();
        Figures {
            relative_l2: self.relative_l2(),
            cosine: finite(Some((self.product / lengths).clamp(-1.0, 1.0))),
            max_abs: self.max_abs(),
            compared: self.compared,
            before: self.before.report(),
            after: self.after.report(),
        }
    }
}

/// JSON has no other numbers: what is past `f64`, or is 0 / 0, is nothing.
fn finite(number: Option<f64>) -> Option<f64> {
    number.filter(|number| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All in one block, or in blocks of `length` that are merged.
    fn distance(before: &[f64], after: &[f64], length: usize) -> Distance {
        let mut whole = Distance::default();
        for (before, after) in before.chunks(length).zip(after.chunks(length)) {
            let mut part = Distance::default();
            part.add(before, after);
            whole.merge(&part);
        }
        whole
    }

    #[track_caller]
    fn close(found: Option<f64>, expected: f64) {
        let found = found.expect("a number");
        assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{found}, expected {expected}");
    }

    #[test]
    fn figures_are_those_of_the_definitions() {
        let (before, after) = ([1.0, -2.0, 3.0, 4.0], [1.0, -2.0, 2.0, 6.0]);
        for length in [1, 3, 4] {
            let found = distance(&before, &after, length).report();
            close(found.relative_l2, (5.0_f64 / 30.0).sqrt());
            close(found.cosine, 35.0 / (30.0_f64 * 45.0).sqrt());
            close(found.max_abs, 2.0);
            close(found.before.mean, 1.5);
            close(found.before.std, (21.0_f64 / 4.0).sqrt());
            close(found.after.mean, 1.75);
            assert_eq!(found.compared, 4);
        }
    }

    #[test]
    fn a_spread_far_from_zero_is_not_lost() {
        let before: Vec<f64> = (0..10_000).map(|n| 1e9 + f64::from(n % 7)).collect();
        let found = distance(&before, &before, 64).report();
        let mean = (0..10_000).map(|n| f64::from(n % 7)).sum::<f64>() / 1e4;
        let square = (0..10_000).map(|n| (f64::from(n % 7) - mean).powi(2)).sum::<f64>() / 1e4;
        let std = found.before.std.unwrap();
        assert!((std - square.sqrt()).abs() < 1e-9, "{std}");
        assert_eq!((found.relative_l2, found.max_abs), (Some(0.0), Some(0.0)));
    }

    #[test]
    fn strange_numbers_are_counted_and_left_out() {
        let before = [1.0, f64::NAN, f64::INFINITY, 4.0, 5.0];
        let after = [2.0, 3.0, f64::NEG_INFINITY, f64::NAN, 5.0];
        let found = distance(&before, &after, 2).report();
        assert_eq!((found.before.nan, found.before.infinite), (1, 1));
        assert_eq!((found.after.nan, found.after.infinite), (1, 1));
        close(found.before.mean, 10.0 / 3.0);
        close(found.after.mean, 10.0 / 3.0);
        assert_eq!((found.compared, found.max_abs), (2, Some(1.0)));
        close(found.relative_l2, (1.0_f64 / 26.0).sqrt());
    }

    #[test]
    fn what_is_no_number_is_nothing() {
        let zero = distance(&[0.0; 9], &[1.0; 9], 4).report();
        assert_eq!((zero.relative_l2, zero.cosine), (None, None));
        assert_eq!((zero.max_abs, zero.after.std), (Some(1.0), Some(0.0)));
        let none = Distance::default().report();
        assert_eq!((none.max_abs, none.before.mean, none.before.std), (None, None, None));
        let huge = distance(&[1e300; 3], &[-1e300; 3], 2).report();
        assert_eq!((huge.relative_l2, huge.max_abs), (None, Some(2e300)));
        close(huge.before.mean, 1e300);
    }

    #[test]
    fn a_block_that_is_the_same_is_as_one_that_is_compared() {
        let values: Vec<f64> = (0..100).map(|n| f64::from(n) * 0.37 - 9.0).collect();
        let mut same = Distance::default();
        same.add_same(&values);
        assert_eq!(same, distance(&values, &values, 100));
        let odd = [1.0, f64::NAN, 2.0];
        let mut same = Distance::default();
        same.add_same(&odd);
        let report = same.report();
        assert_eq!((report.compared, report.after.nan), (2, 1));
        close(report.cosine, 1.0);
    }
}
