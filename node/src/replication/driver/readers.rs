//! Readers, and refused writes, that wait for a proof that this replica leads.

use super::answers::Refused;

/// Questions to the other copies whether this one still leads: one is asked at a time, for all that wait.
pub(super) struct Readers<W, R> {
    /// The question that was asked last, and who waits for its answer.
    asked: Option<(u64, Vec<Waiting<W, R>>)>,
    /// Who came after it was asked.
    next: Vec<Waiting<W, R>>,
    last: u64,
}

/// Who waits for an answer.
pub(super) enum Waiting<W, R> {
    Reader(R),
    Refused(Vec<Refused<W>>),
}

impl<W, R> Default for Readers<W, R> {
    fn default() -> Readers<W, R> {
        Readers { asked: None, next: Vec::new(), last: 0 }
    }
}

impl<W, R> Readers<W, R> {
    /// Adds one who waits. The number of a question that is to be asked now, if there is one.
    pub(super) fn ask(&mut self, waiting: Waiting<W, R>) -> Option<u64> {
        self.next.push(waiting);
        self.ask_next()
    }

    /// A question was answered: who waited for it, and the number of the next one that is to be asked now.
    pub(super) fn answered(&mut self, id: u64) -> (Vec<Waiting<W, R>>, Option<u64>) {
        match self.asked.take_if(|(asked, _)| *asked == id) {
            Some((_, waiting)) => (waiting, self.ask_next()),
            None => (Vec::new(), None),
        }
    }

    fn ask_next(&mut self) -> Option<u64> {
        if self.asked.is_some() || self.next.is_empty() {
            return None;
        }
        self.last += 1;
        self.asked = Some((self.last, std::mem::take(&mut self.next)));
        Some(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_after_a_question_waits_for_the_next_one() {
        let mut readers = Readers::<(), u8>::default();
        let names = |waiting: Vec<Waiting<(), u8>>| {
            let name = |waiting| match waiting {
                Waiting::Reader(reader) => reader,
                Waiting::Refused(_) => panic!("nothing was refused"),
            };
            waiting.into_iter().map(name).collect::<Vec<u8>>()
        };
        assert_eq!(readers.ask(Waiting::Reader(1)), Some(1));
        assert_eq!(readers.ask(Waiting::Reader(2)), None);
        assert_eq!(readers.ask(Waiting::Reader(3)), None);
        let (waiting, next) = readers.answered(1);
        assert_eq!((names(waiting), next), (vec![1], Some(2)));
        let (waiting, next) = readers.answered(1);
        assert_eq!((names(waiting), next), (vec![], None), "answered before");
        let (waiting, next) = readers.answered(2);
        assert_eq!((names(waiting), next), (vec![2, 3], None));
    }
}
