//! Boosted trees: what XGBoost and LightGBM write, in one form.
//!
//! Invariant B1: the nodes of a tree are all reached from its root, the first one, each on one way, so
//! that a walk ends.

mod details;
mod lightgbm;
mod ubjson;
mod xgboost;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::mem::size_of;

use super::reader::Reader;
use super::{InspectError, ReadAt, Stop, TABLE_BYTES_MAX, kind, kind_of};

pub use details::TreesDetails;

/// Trees of a boosted model, and what the file says of how they came about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ensemble {
    /// `xgboost` or `lightgbm`.
    pub library: String,
    /// Of the library, or of its format where the file only says that.
    pub version: String,
    /// How trees were made: `gbtree`, `dart`, `gbdt`, …
    pub booster: String,
    /// With its own parameters, as the file has it: `binary:logistic`, `binary sigmoid:1`.
    pub objective: String,
    /// Everything else that has a name and a value.
    pub parameters: BTreeMap<String, String>,
    /// In the order of their indices. Named by those where the file has no names.
    pub features: Vec<Feature>,
    /// Trees that are added in one round: one a class.
    pub group_count: u64,
    /// For each feature 1, -1 or 0: predictions only rise, only fall, or may do either as it grows.
    /// Empty where the file does not say.
    pub monotone: Vec<i32>,
    /// Indices of features that may stand together on one way through a tree. Empty: all of them, or
    /// the file does not say.
    pub interactions: Vec<Vec<u32>>,
    pub trees: Vec<Tree>,
}

/// A column of the data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Feature {
    pub name: String,
    /// As the file has it, such as `float` or `[0:5]`; may be empty.
    pub kind: String,
}

/// One tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tree {
    /// Which of the outputs it adds to.
    pub group: u32,
    /// What its leaves were or are to be multiplied with.
    pub weight: f64,
    /// The root first (B1).
    pub nodes: Vec<TreeNode>,
}

impl Tree {
    /// Splits on the longest way from the root to a leaf.
    pub fn depth(&self) -> u64 {
        let (mut deepest, mut next) = (0, vec![(0_u32, 0_u64)]);
        while let Some((index, depth)) = next.pop() {
            deepest = deepest.max(depth);
            let split = self.nodes.get(index as usize).and_then(|node| node.split.as_ref());
            next.extend(
                split.into_iter().flat_map(|split| split.children.map(|it| (it, depth + 1))),
            );
        }
        deepest
    }
}

/// A leaf, or a question with two answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TreeNode {
    /// `None`: a leaf.
    pub split: Option<Split>,
    /// What a leaf adds, to all outputs together where it adds to several; what this node would add if
    /// it were a leaf, where the file says that.
    pub value: f64,
    /// Sum of the hessians of the training rows that came here.
    pub cover: f64,
    /// Those rows, where the file counts them.
    pub count: Option<u64>,
}

/// How a node sends rows on.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    pub feature: u32,
    pub left_if: Test,
    /// Whether rows without a value go left.
    pub default_left: bool,
    pub gain: f64,
    /// Left and right, as indices of nodes.
    pub children: [u32; 2],
}

/// What is true of a value that goes left.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    Below(f64),
    AtMost(f64),
    /// It is one of these categories.
    Among(Vec<u32>),
    NotAmong(Vec<u32>),
}

/// Reads the trees of a file called `name`.
///
/// # Errors
/// `Unknown` for files of other formats, `Malformed`, and `Io` from reading it.
pub fn ensemble(name: &OsStr, file: &dyn ReadAt) -> Result<Ensemble, InspectError> {
    let format = kind_of(file, name)?;
    read(format, &mut Reader::of_whole(file)).map_err(|stop| stop.of(format))
}

/// Reads the trees of a file of this format.
pub(super) fn read(format: &str, reader: &mut Reader<'_>) -> Result<Ensemble, Stop> {
    let mut builder = Builder::new();
    match format {
        kind::LIGHTGBM => lightgbm::read(reader, &mut builder)?,
        kind::XGBOOST_JSON => xgboost::read_json(reader, &mut builder)?,
        kind::XGBOOST_UBJ => xgboost::read_ubjson(reader, &mut builder)?,
        _ => return Err(Stop::Unknown),
    }
    Ok(builder.ensemble)
}

/// An ensemble that is being read, within its limit.
pub(super) struct Builder {
    pub ensemble: Ensemble,
    bytes_left: usize,
}

impl Builder {
    pub fn new() -> Self {
        Self { ensemble: Ensemble::default(), bytes_left: TABLE_BYTES_MAX }
    }

    /// Counts memory.
    pub fn spend(&mut self, bytes: usize) -> Result<(), Stop> {
        let left = self.bytes_left.checked_sub(bytes);
        self.bytes_left = left.ok_or(Stop::Malformed("its trees are too large"))?;
        Ok(())
    }

    /// Counts memory that was counted and is free again.
    pub fn give_back(&mut self, bytes: usize) {
        self.bytes_left = self.bytes_left.saturating_add(bytes).min(TABLE_BYTES_MAX);
    }

    /// Keeps something that has a name.
    pub fn add_parameter(&mut self, name: &str, value: &str) -> Result<(), Stop> {
        self.spend(size_of::<String>() * 4 + name.len() + value.len())?;
        self.ensemble.parameters.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    pub fn add_feature(&mut self, name: &str) -> Result<(), Stop> {
        self.spend(size_of::<Feature>() + name.len())?;
        self.ensemble.features.push(Feature { name: name.to_owned(), kind: String::new() });
        Ok(())
    }

    /// Adds a tree whose nodes were counted by [`Builder::spend`]. Nodes that its root does not lead
    /// to, which pruning leaves behind, are dropped.
    pub fn add_tree(&mut self, tree: Tree) -> Result<(), Stop> {
        self.spend(size_of::<Tree>())?;
        let nodes = reached(tree.nodes)?;
        self.ensemble.trees.push(Tree { nodes, ..tree });
        Ok(())
    }
}

/// The nodes that the first one leads to, in their order (B1).
fn reached(mut nodes: Vec<TreeNode>) -> Result<Vec<TreeNode>, Stop> {
    let wrong = || Stop::Malformed("the nodes of a tree are no tree");
    let mut is_reached = vec![false; nodes.len()];
    let mut next = vec![0];
    while let Some(index) = next.pop() {
        let seen = is_reached.get_mut(index as usize).ok_or_else(wrong)?;
        if std::mem::replace(seen, true) {
            return Err(wrong());
        }
        let split = nodes[index as usize].split.as_ref();
        next.extend(split.into_iter().flat_map(|split| split.children));
    }
    if is_reached.iter().all(|is_reached| *is_reached) {
        return Ok(nodes);
    }
    let mut places = Vec::with_capacity(nodes.len());
    let mut count = 0_u32;
    for is_reached in &is_reached {
        places.push(count);
        count += u32::from(*is_reached);
    }
    let mut kept = is_reached.iter();
    nodes.retain(|_| kept.next().is_some_and(|is_reached| *is_reached));
    for split in nodes.iter_mut().filter_map(|node| node.split.as_mut()) {
        split.children = split.children.map(|child| places[child as usize]);
    }
    Ok(nodes)
}
