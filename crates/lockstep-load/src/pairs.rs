//! Comparing two things where other work goes on too: short runs of both, in turn, and the median of the pairs' ratios.
//! What disturbs one run disturbs its partner or one pair; it does not move the median.

/// One run of each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// Without what is measured.
    pub base: f64,
    /// With it.
    pub with: f64,
}

/// The middle one, or the mean of the two in the middle. 0 of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// What pairs say together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compared {
    /// The median of the runs with it.
    pub value: f64,
    /// The median of the ratios.
    pub ratio: f64,
    /// The lowest ratio.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

/// Median, lowest and highest of the pairs' ratios.
pub fn compare(pairs: &[Pair]) -> Compared {
    let ratios: Vec<f64> =
        pairs.iter().filter(|pair| pair.base > 0.0).map(|pair| pair.with / pair.base).collect();
    let with: Vec<f64> = pairs.iter().map(|pair| pair.with).collect();
    Compared {
        value: median(&with),
        ratio: median(&ratios),
        min: ratios.iter().copied().fold(f64::INFINITY, f64::min),
        max: ratios.iter().copied().fold(0.0, f64::max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_ignores_what_is_far_off() {
        assert_eq!(median(&[3.0, 1.0, 100.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), 3.0);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn ratios_are_of_pairs() {
        let pairs = [(100.0, 90.0), (50.0, 46.0), (100.0, 10.0)].map(|(base, with)| Pair { base, with });
        let compared = compare(&pairs);
        assert_eq!((compared.ratio, compared.value), (0.9, 46.0));
        assert_eq!((compared.min, compared.max), (0.1, 0.92));
    }
}
