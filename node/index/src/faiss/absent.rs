//! What stands in place of the FAISS library where this crate was built without it, so that callers are the same: there is
//! no index, and no kind of index is accepted.

use std::convert::Infallible;
use std::fmt;
use std::io::{self, Read, Write};

use crate::{Metric, RowsView};

/// True when indexes of FAISS can be built.
pub const IS_BUILT_IN: bool = false;

/// A kind of index that FAISS could build: none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Factory(Infallible);

/// An index of FAISS: none.
#[derive(Debug)]
pub struct FaissIndex(Infallible);

/// Why there is no such index.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this build is without the FAISS library")]
pub struct BadFactory;

/// What can go wrong with an index of FAISS.
#[derive(Debug, thiserror::Error)]
pub enum FaissError {
    /// There is none.
    #[error(transparent)]
    Factory(#[from] BadFactory),
    /// An index could not be written.
    #[error("an index of FAISS could not be written")]
    Write(#[source] io::Error),
    /// A stored index could not be read.
    #[error("a stored index of FAISS could not be read")]
    Read(#[source] io::Error),
}

/// How thoroughly an index can be searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EffortRange {
    /// Every search reads everything.
    None,
    /// Lists that a search looks into.
    Lists(std::ops::RangeInclusive<u32>),
    /// Rows that a walk keeps in mind.
    Candidates(std::ops::RangeInclusive<u32>),
}

impl Factory {
    /// Refuses every string.
    pub fn parse(_text: &str, _dimension: usize, _metric: Metric) -> Result<Factory, BadFactory> {
        Err(BadFactory)
    }

    /// There is none.
    ///
    /// # Panics
    /// Always: [`IS_BUILT_IN`] is to be looked at before.
    pub fn trained(_rows: usize, _dimension: usize, _metric: Metric) -> Factory {
        panic!("this build is without the FAISS library")
    }

    /// Of rows that there are none of.
    pub fn rows_needed(&self) -> usize {
        match self.0 {}
    }

    /// Of searches that there are none of.
    pub fn effort(&self, _rows: usize) -> EffortRange {
        match self.0 {}
    }

    /// Of searches that there are none of.
    pub fn effort_of(&self, _asked: Option<u32>) -> u32 {
        match self.0 {}
    }

    /// Of rows that there are none of.
    pub fn dimension(&self) -> usize {
        match self.0 {}
    }

    /// Of rows that there are none of.
    pub fn bytes_to_build(&self, _rows: usize) -> usize {
        match self.0 {}
    }

    /// Of rows that there are none of.
    pub fn bytes(&self, _rows: usize) -> usize {
        match self.0 {}
    }

    /// Of rows that there are none of.
    pub fn metric(&self) -> Metric {
        match self.0 {}
    }
}

impl fmt::Display for Factory {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

impl FaissIndex {
    /// There is nothing to build.
    pub fn build(_rows: &RowsView, factory: &Factory) -> Result<FaissIndex, FaissError> {
        match factory.0 {}
    }

    /// There is nothing to search.
    pub fn search(
        &self,
        _vector: &[f32],
        _top_k: usize,
        _effort: Option<u32>,
        _visible: impl Fn(u32) -> bool,
    ) -> Result<Vec<u32>, FaissError> {
        match self.0 {}
    }

    /// There is nothing to write.
    pub fn save(&self, _writer: &mut dyn Write) -> Result<(), FaissError> {
        match self.0 {}
    }

    /// Refuses.
    ///
    /// # Errors
    /// Always.
    pub fn load(_reader: &mut dyn Read) -> Result<FaissIndex, FaissError> {
        Err(BadFactory.into())
    }

    /// There is none.
    pub fn factory(&self) -> &Factory {
        match self.0 {}
    }

    /// There are none.
    pub fn rows(&self) -> usize {
        match self.0 {}
    }

    /// There are none.
    pub fn bytes(&self) -> usize {
        match self.0 {}
    }
}
