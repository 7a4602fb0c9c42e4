//! A policy as a tree of the fields of a conversation, so that a walk through JSON finds the action of each value.
//!
//! Guarantees: a value of an unexpected shape gets the strictest action of all that it may hold. A tree that follows an
//! earlier policy hashes nothing again. Must not depend on: JSON text.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::field::{Field, Star, is_known, known_fields, table_at};
use super::mask::Mask;
use super::redact::Redactor;
use super::rules::Policy;
use crate::error::Result;
use crate::model::Table;

/// What is done with a value.
#[derive(Debug, Clone)]
pub(super) enum MaskAction {
    Keep,
    Drop,
    Hash,
    Text(Arc<TextAction>),
}

/// What is done with the texts in a value.
#[derive(Debug)]
pub(super) struct TextAction {
    pub(super) redactor: Option<Redactor>,
    pub(super) truncate: Option<usize>,
}

/// The number of a node.
pub(super) type NodeId = usize;

/// The values at one path.
#[derive(Debug)]
pub(super) struct Node {
    /// For an object or an array.
    pub(super) action: MaskAction,
    /// For any other value. If fields below have rules, it is as strict as all of them, because it may hold them.
    pub(super) scalar: MaskAction,
    /// The same for an element of an array, if it means a single field: a bare tag id.
    pub(super) bare: Option<MaskAction>,
    /// Whether a readable time stays.
    pub(super) keeps_times: bool,
    /// The rules for the value itself.
    pub(super) rules: Vec<usize>,
    exact: BTreeMap<String, Option<NodeId>>,
    other: Option<NodeId>,
}

/// The tree. The conversation is the node 0.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: Vec<Node>,
}

/// How often each rule of a policy applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleHits {
    /// The conversations that were read.
    pub conversations: u64,
    /// By rule, the values that it covered, and how many of them changed.
    pub by_rule: Vec<(u64, u64)>,
}

impl RuleHits {
    /// Adds `other`.
    pub fn add(&mut self, other: &RuleHits) {
        self.conversations = self.conversations.saturating_add(other.conversations);
        if self.by_rule.len() < other.by_rule.len() {
            self.by_rule.resize(other.by_rule.len(), (0, 0));
        }
        for (own, (covered, changed)) in self.by_rule.iter_mut().zip(&other.by_rule) {
            *own = (own.0.saturating_add(*covered), own.1.saturating_add(*changed));
        }
    }

    pub(super) fn note(&mut self, rules: &[usize], changed: bool) {
        for rule in rules {
            if self.by_rule.len() <= *rule {
                self.by_rule.resize(rule.saturating_add(1), (0, 0));
            }
            if let Some(own) = self.by_rule.get_mut(*rule) {
                *own = (own.0.saturating_add(1), own.1.saturating_add(u64::from(changed)));
            }
        }
    }
}

impl Tree {
    /// The tree of a policy, for values that follow the `earlier` one, if any.
    pub(super) fn new(policy: &Policy, earlier: Option<&Policy>) -> Result<Self> {
        let mut paths = BTreeSet::new();
        for field in policy.fields().chain(earlier.into_iter().flat_map(Policy::fields)) {
            (0..=field.path.len()).filter_map(|length| field.path.get(..length)).for_each(|path| {
                paths.insert(path.to_vec());
            });
            if field.star != Star::No {
                // A wildcard means something else for the fields that have a column.
                paths.extend(known_fields(&field.path).into_iter().map(|(name, _)| joined(&field.path, name)));
            }
        }
        let mut builder = TreeBuilder { policy, earlier, paths, texts: BTreeMap::new(), tree: Tree::default() };
        builder.node(&[])?;
        Ok(builder.tree)
    }

    pub(super) fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id)
    }

    /// The node at a path; `None` if nothing is done there.
    pub(super) fn at(&self, path: &[&str]) -> Option<NodeId> {
        path.iter().try_fold(0, |node, name| self.child(node, name))
    }

    /// The node of a field; `None` if nothing is done with it.
    pub(super) fn child(&self, parent: NodeId, name: &str) -> Option<NodeId> {
        let node = self.nodes.get(parent)?;
        match node.exact.get(name) {
            Some(child) => *child,
            // What a text is searched for, the texts inside are searched for too.
            None => node.other.or_else(|| matches!(node.action, MaskAction::Text(_)).then_some(parent)),
        }
    }

    /// Whether a rule names this field of a node.
    pub(super) fn names(&self, parent: NodeId, name: &str) -> bool {
        self.nodes.get(parent).is_some_and(|node| node.exact.contains_key(name))
    }

    /// Whether any value is hashed.
    pub(super) fn hashes(&self) -> bool {
        self.nodes.iter().any(|node| [Some(&node.action), Some(&node.scalar), node.bare.as_ref()].contains_hash())
    }

    /// Adds what is done with the fields of children to the conversation itself: a malformed entry may be one of them.
    pub(super) fn with_strays(mut self) -> Self {
        let tables: Vec<NodeId> = Table::CHILDREN.iter().filter_map(|table| self.child(0, table.name())).collect();
        for table in tables {
            let Some(Node { exact, other, .. }) = self.nodes.get(table) else { continue };
            let (exact, other) = (exact.clone(), *other);
            let Some(root) = self.nodes.first_mut() else { continue };
            for (name, child) in exact {
                let own = root.exact.entry(name).or_default();
                *own = own.or(child);
            }
            root.other = root.other.or(other);
        }
        self
    }
}

trait ContainsHash {
    fn contains_hash(&self) -> bool;
}

impl ContainsHash for [Option<&MaskAction>; 3] {
    fn contains_hash(&self) -> bool {
        self.iter().flatten().any(|action| matches!(action, MaskAction::Hash))
    }
}

struct TreeBuilder<'p> {
    policy: &'p Policy,
    earlier: Option<&'p Policy>,
    /// The paths that need a node, with all that they are in.
    paths: BTreeSet<Vec<String>>,
    /// Compiled actions on texts, because many fields share one.
    texts: BTreeMap<Mask, Arc<TextAction>>,
    tree: Tree,
}

impl TreeBuilder<'_> {
    /// Adds the node of a path with all below; `None` if nothing is done there.
    fn node(&mut self, path: &[String]) -> Result<Option<NodeId>> {
        let id = self.tree.nodes.len();
        let mask = self.change(|policy| policy.mask_at(path));
        let scalar = self.change(|policy| closed(policy, path));
        let bare = match table_at(path) {
            Some(Table::Tags) => {
                let id = joined(path, "id");
                Some(self.change(|policy| policy.mask_at(&id)))
            }
            _ => None,
        };
        let bare = bare.map(|mask| self.action(&mask)).transpose()?;
        let node = Node {
            action: self.action(&mask)?,
            scalar: self.action(&scalar)?,
            bare,
            keeps_times: keeps_times(path),
            rules: self.rules(path, false),
            exact: BTreeMap::new(),
            other: None,
        };
        let own_is_idle = mask.is_none() && scalar.is_none();
        self.tree.nodes.push(node);
        let names: Vec<String> = self
            .paths
            .iter()
            .filter(|other| other.split_last().is_some_and(|(_, parent)| parent == path))
            .filter_map(|other| other.last().cloned())
            .collect();
        let mut exact = BTreeMap::new();
        for name in names {
            let child = self.node(&joined(path, &name))?;
            exact.insert(name, child);
        }
        let other = self.other(path)?;
        let is_idle = own_is_idle && other.is_none() && exact.values().all(Option::is_none);
        if is_idle && !path.is_empty() {
            self.tree.nodes.truncate(id);
            return Ok(None);
        }
        if let Some(node) = self.tree.nodes.get_mut(id) {
            (node.exact, node.other) = (exact, other);
        }
        Ok(Some(id))
    }

    /// Adds the node of the fields at a path that no rule names.
    fn other(&mut self, path: &[String]) -> Result<Option<NodeId>> {
        let mask = self.change(|policy| policy.mask_below(path));
        let is_own = [Star::All, Star::Others].into_iter().any(|star| {
            let field = Field::below(path, star);
            let mut fields = self.policy.fields().chain(self.earlier.into_iter().flat_map(Policy::fields));
            fields.any(|other| *other == field)
        });
        // What is inherited needs no node of its own.
        if !is_own {
            return Ok(None);
        }
        let id = self.tree.nodes.len();
        let (action, scalar) = (self.action(&mask)?, self.action(&mask)?);
        let rules = self.rules(path, true);
        let (exact, other) = (BTreeMap::new(), None);
        self.tree.nodes.push(Node { action, scalar, bare: None, keeps_times: false, rules, exact, other });
        Ok(Some(id))
    }

    /// What has still to be done after the earlier policy: a hash is not hashed again, or read as text.
    fn change(&self, mask: impl Fn(&Policy) -> Mask) -> Mask {
        let own = mask(self.policy);
        match self.earlier.map(mask) {
            Some(earlier) if earlier.hash && !earlier.drop && !own.drop => Mask::default(),
            _ => own,
        }
    }

    /// The rules that name a path, or with `below` the fields there that no rule names.
    fn rules(&self, path: &[String], below: bool) -> Vec<usize> {
        let covers = |field: &Field| match (field.star, below) {
            (Star::No, false) => field.path == path,
            (Star::No, true) => false,
            (_, true) => field.path == path,
            (star, false) => path
                .split_last()
                .is_some_and(|(name, parent)| field.path == parent && (star == Star::All || !is_known(parent, name))),
        };
        let rules = self.policy.rules().iter().enumerate();
        rules.filter(|(_, rule)| covers(&rule.field)).map(|(number, _)| number).collect()
    }

    fn action(&mut self, mask: &Mask) -> Result<MaskAction> {
        if mask.drop {
            return Ok(MaskAction::Drop);
        }
        if mask.hash {
            return Ok(MaskAction::Hash);
        }
        if mask.is_none() {
            return Ok(MaskAction::Keep);
        }
        if let Some(known) = self.texts.get(mask) {
            return Ok(MaskAction::Text(Arc::clone(known)));
        }
        let redactor = (!mask.patterns.is_empty()).then(|| Redactor::new(&mask.patterns)).transpose()?;
        let truncate = mask.truncate.map(|most| usize::try_from(most).unwrap_or(usize::MAX));
        let action = Arc::new(TextAction { redactor, truncate });
        self.texts.insert(mask.clone(), Arc::clone(&action));
        Ok(MaskAction::Text(action))
    }
}

/// The strictest mask of all that a value at a path may hold.
fn closed(policy: &Policy, path: &[String]) -> Mask {
    if path.is_empty() {
        return Mask::default();
    }
    let below = policy.fields().filter(|field| field.path.starts_with(path));
    let masks = below.map(|field| match field.star {
        Star::No => policy.mask_at(&field.path),
        Star::All | Star::Others => policy.mask_below(&field.path),
    });
    masks.fold(policy.mask_at(path), |all, mask| all.and(&mask))
}

/// Whether the field holds a time, which wildcards keep.
fn keeps_times(path: &[String]) -> bool {
    path.split_last()
        .is_some_and(|(name, parent)| known_fields(parent).iter().any(|(known, is_time)| *is_time && known == name))
}

fn joined(path: &[String], name: &str) -> Vec<String> {
    path.iter().cloned().chain([name.to_owned()]).collect()
}
