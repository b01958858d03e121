//! What is left of a sequence: a ring from which places go and come back, last out first in.

/// The numbers `0..length` without those that were taken out.
pub(crate) struct Ring {
    /// By number; the last place stands before the first and behind the last one.
    places: Vec<Neighbours>,
}

#[derive(Clone, Copy)]
struct Neighbours {
    previous: usize,
    next: usize,
}

impl Ring {
    /// All of `0..length`.
    pub(crate) fn new(length: usize) -> Ring {
        let places = length + 1;
        let neighbours =
            |index| Neighbours { previous: (index + length) % places, next: (index + 1) % places };
        Ring { places: (0..places).map(neighbours).collect() }
    }

    /// What is left, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        let end = self.places.len() - 1;
        let behind = move |index: usize| Some(self.places[index].next).filter(|next| *next != end);
        std::iter::successors(behind(end), move |index| behind(*index))
    }

    /// Takes `index` out.
    pub(crate) fn remove(&mut self, index: usize) {
        let Neighbours { previous, next } = self.places[index];
        self.places[previous].next = next;
        self.places[next].previous = previous;
    }

    /// Puts back `index`, the last one that was taken out and not put back.
    pub(crate) fn restore(&mut self, index: usize) {
        let Neighbours { previous, next } = self.places[index];
        self.places[previous].next = index;
        self.places[next].previous = index;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_comes_back_in_its_place() {
        let left = |ring: &Ring| ring.iter().collect::<Vec<_>>();
        let mut ring = Ring::new(4);
        assert_eq!(left(&ring), [0, 1, 2, 3]);
        for index in [1, 2, 0, 3] {
            ring.remove(index);
        }
        assert_eq!(left(&ring), []);
        ring.restore(3);
        ring.restore(0);
        assert_eq!(left(&ring), [0, 3]);
        ring.restore(2);
        ring.restore(1);
        assert_eq!(left(&ring), [0, 1, 2, 3]);
        assert_eq!(left(&Ring::new(0)), []);
    }
}
