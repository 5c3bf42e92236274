//! States of prompts' beginnings, kept so that they are computed once.
//!
//! A prompt is run in chunks of a fixed number of tokens, counted from its first. Behind each whole chunk the state is a
//! function of the tokens so far and of the cache's spec alone, bit for bit, whatever the spec does: who else runs plays no
//! part, and neither does what comes after. So the states at these places, and no others, can be gone on from by any prompt
//! that begins alike, and every answer is what it would have been alone. A state is not kept when its cap was lowered for
//! others on the way: it depends on them.
//!
//! The states form a radix tree whose edges are chunks, each named by a hash of all tokens up to it. Pages are shared between a
//! state, those behind it and the answers that go on from it, until one writes.

use sha2::{Digest, Sha256};
use sketchkv_cache::{Cache, Spec};
use std::collections::HashMap;

/// Names a spec and the tokens of whole chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key([u8; 32]);

impl Key {
    /// Its spelling in hexadecimal, for a file's name.
    pub(crate) fn name(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The keys behind every whole chunk of `tokens` that leaves at least one token to run.
pub(crate) fn keys(model: &str, spec: &Spec, chunk: usize, tokens: &[u32]) -> Vec<Key> {
    let mut hash: [u8; 32] = Sha256::digest(format!("{model}\n{spec}\n{chunk}\n")).into();
    let whole = tokens.len().saturating_sub(1) / chunk;
    let next = |tokens: &[u32]| {
        let mut hasher = Sha256::new_with_prefix(hash);
        tokens.iter().for_each(|token| hasher.update(token.to_le_bytes()));
        hash = hasher.finalize().into();
        Key(hash)
    };
    tokens.chunks(chunk).take(whole).map(next).collect()
}

/// A state.
struct Node {
    cache: Cache,
    /// Bytes beyond those that it shares with the one before.
    bytes: usize,
    parent: Option<Key>,
    /// States right behind it.
    children: usize,
    /// Answers in the works that go on from it.
    users: usize,
    /// When it was last used, in rounds.
    used: u64,
}

/// All states.
#[derive(Default)]
pub(crate) struct Prefixes {
    nodes: HashMap<Key, Node>,
    clock: u64,
}

impl Prefixes {
    /// How many of the first `keys` chunks have a state in memory: the index of the deepest.
    pub(crate) fn deepest(&self, keys: &[Key]) -> Option<usize> {
        (0..keys.len()).rev().find(|&depth| self.nodes.contains_key(&keys[depth]))
    }

    /// A cache that goes on from the state; it stays until [`Prefixes::leave`].
    pub(crate) fn enter(&mut self, key: Key) -> Option<Cache> {
        self.clock += 1;
        let node = self.nodes.get_mut(&key)?;
        node.users += 1;
        node.used = self.clock;
        Some(node.cache.fork())
    }

    /// An answer that went on from the state is over.
    pub(crate) fn leave(&mut self, key: Key) {
        if let Some(node) = self.nodes.get_mut(&key) {
            node.users -= 1;
        }
    }

    /// The bytes that keeping `cache` behind `parent` would add.
    pub(crate) fn cost(&self, parent: Option<Key>, cache: &Cache) -> usize {
        let before = parent.and_then(|parent| self.nodes.get(&parent));
        before.map_or_else(|| cache.ledger().total(), |node| cache.bytes_beyond(&node.cache))
    }

    /// Keeps a state of `bytes` ([`Prefixes::cost`]) behind `parent`; there must be none.
    pub(crate) fn insert(&mut self, key: Key, parent: Option<Key>, cache: Cache, bytes: usize) {
        self.clock += 1;
        let parent = parent.filter(|parent| self.nodes.contains_key(parent));
        if let Some(parent) = parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            parent.children += 1;
        }
        self.nodes.insert(key, Node { cache, bytes, parent, children: 0, users: 0, used: self.clock });
    }

    pub(crate) fn contains(&self, key: Key) -> bool {
        self.nodes.contains_key(&key)
    }

    /// Lets go of the state that was not used for longest, of those that nothing goes on from; gives its bytes.
    pub(crate) fn shed(&mut self) -> Option<usize> {
        let idle = self.nodes.iter().filter(|(_, node)| node.children == 0 && node.users == 0);
        let key = *idle.min_by_key(|(_, node)| node.used)?.0;
        let node = self.nodes.remove(&key)?;
        if let Some(parent) = node.parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            parent.children -= 1;
        }
        Some(node.bytes)
    }

    /// Bytes of the states that no answer goes on from right now.
    pub(crate) fn idle_bytes(&self) -> usize {
        self.nodes.values().filter(|node| node.users == 0).map(|node| node.bytes).sum()
    }

    /// Bytes of all states.
    pub(crate) fn bytes(&self) -> usize {
        self.nodes.values().map(|node| node.bytes).sum()
    }

    /// How many states there are.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }
}
