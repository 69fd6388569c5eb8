//! Paired rounds: variants take turns, and are compared with what another one did in the same round.
//!
//! A machine is slower at one moment than at the next, by more than what is to be shown. Within a round all variants meet the
//! same machine, so ratios are taken there, and their median says what is left when the moments are taken away.

/// Something to measure: its name, and one run of it, which returns what it took, by the unit of work.
pub(crate) struct Variant<'a, const N: usize> {
    name: &'static str,
    run: Box<dyn FnMut() -> [f64; N] + 'a>,
}

impl<'a, const N: usize> Variant<'a, N> {
    pub(crate) fn new(name: &'static str, run: impl FnMut() -> [f64; N] + 'a) -> Self {
        let run = Box::new(run);
        Self { name, run }
    }
}

/// Runs every variant once in each of `count` rounds, after one round that does not count. The order changes, so that
/// none always follows the same other one. There is a result for each of the `N` things that a run measures.
pub(crate) fn run<const N: usize>(count: usize, mut variants: Vec<Variant<'_, N>>) -> [Paired; N] {
    let names: Vec<_> = variants.iter().map(|variant| variant.name).collect();
    let mut results = std::array::from_fn(|_| Paired::new(&names));
    for variant in &mut variants {
        (variant.run)();
    }
    for round in 0..count {
        for turn in 0..variants.len() {
            let index = place(round, turn, variants.len());
            let Some(variant) = variants.get_mut(index) else {
                continue;
            };
            for (result, took) in results.iter_mut().zip((variant.run)()) {
                result.add(index, took);
            }
        }
    }
    results
}

/// Who has the given turn: a rotation, and every second time backwards.
fn place(round: usize, turn: usize, count: usize) -> usize {
    let turn = if round % 2 == 0 {
        turn
    } else {
        count - 1 - turn
    };
    (turn + round / 2) % count
}

/// One thing that was measured of all variants in all rounds.
pub(crate) struct Paired {
    names: Vec<&'static str>,
    /// By variant, then by round.
    took: Vec<Vec<f64>>,
}

/// A median, and the quartiles around it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Median {
    pub(crate) low: f64,
    pub(crate) middle: f64,
    pub(crate) high: f64,
}

impl Paired {
    fn new(names: &[&'static str]) -> Self {
        Self {
            names: names.to_vec(),
            took: vec![Vec::new(); names.len()],
        }
    }

    fn add(&mut self, variant: usize, took: f64) {
        if let Some(rounds) = self.took.get_mut(variant) {
            rounds.push(took);
        }
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.names.clone().into_iter()
    }

    /// What `variant` took.
    pub(crate) fn of(&self, variant: &str) -> Median {
        Median::of(self.rounds(variant).to_vec())
    }

    /// What `variant` took, as a part of what `other` took.
    pub(crate) fn ratio(&self, variant: &str, other: &str) -> Median {
        let pairs = self.rounds(variant).iter().zip(self.rounds(other));
        Median::of(pairs.map(|(one, other)| one / other).collect())
    }

    /// What `variant` took more than `base`.
    pub(crate) fn added(&self, variant: &str, base: &str) -> Median {
        let pairs = self.rounds(variant).iter().zip(self.rounds(base));
        Median::of(pairs.map(|(one, base)| one - base).collect())
    }

    /// What `variant` took more than `base`, as a part of what `other` took more than `other_base`.
    pub(crate) fn added_ratio(
        &self,
        (variant, base): (&str, &str),
        (other, other_base): (&str, &str),
    ) -> Median {
        let more = |one, base| {
            let pairs = self.rounds(one).iter().zip(self.rounds(base));
            pairs.map(|(one, base)| one - base).collect::<Vec<_>>()
        };
        let pairs = more(variant, base).into_iter().zip(more(other, other_base));
        Median::of(pairs.map(|(one, other)| one / other).collect())
    }

    /// No rounds of a variant that was not run: all that is made of them is `NaN`, which no one takes for a result.
    fn rounds(&self, variant: &str) -> &[f64] {
        let index = self.names.iter().position(|&name| name == variant);
        index
            .and_then(|index| self.took.get(index))
            .map_or(&[], Vec::as_slice)
    }
}

impl Median {
    /// Of a list that may be in any order.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |quarter: usize| {
            let last = values.len().saturating_sub(1);
            values.get(last * quarter / 4).copied().unwrap_or(f64::NAN)
        };
        Self {
            low: at(1),
            middle: at(2),
            high: at(3),
        }
    }
}
