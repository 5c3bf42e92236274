//! A method chosen in a spec, with what builds it.

use crate::CacheError;
use crate::budget::{self, Budget};
use crate::context::Context;
use crate::keep::{self, Keep};
use crate::method::Call;
use crate::read::{self, Read};
use crate::refine::{self, Refine};
use crate::store::{self, Store};
use crate::tail::{self, Tail};
use std::fmt;
use std::ops::Deref;

/// A method chosen in a spec: its [`Call`], and the function that builds it from that.
#[derive(Debug, Clone)]
pub struct Chosen<B> {
    call: Call,
    build: B,
}

impl<B> Chosen<B> {
    pub(crate) fn new(call: Call, build: B) -> Self {
        Chosen { call, build }
    }
}

impl<B> Deref for Chosen<B> {
    type Target = Call;

    fn deref(&self) -> &Call {
        &self.call
    }
}

/// What is chosen is said by the call; every method is built by one function.
impl<B> PartialEq for Chosen<B> {
    fn eq(&self, other: &Self) -> bool {
        self.call == other.call
    }
}

impl<B> fmt::Display for Chosen<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.call.fmt(f)
    }
}

impl Chosen<keep::Build> {
    /// The keep of one KV head.
    pub fn build(&self, context: &Context<'_>) -> Box<dyn Keep> {
        (self.build)(&self.call, context)
    }
}

impl Chosen<refine::Build> {
    /// The refinement of a cache whose keep's importance is attention, or is not; `None` to leave importance as it is.
    ///
    /// # Errors
    /// When it does not suit the keep or the model.
    pub fn build(
        &self,
        context: &Context<'_>,
        is_attention: bool,
    ) -> Result<Option<Box<dyn Refine>>, CacheError> {
        (self.build)(&self.call, context, is_attention)
    }
}

impl Chosen<store::Build> {
    /// The store for keys or values of `width` dimensions.
    pub fn build(&self, width: usize) -> Box<dyn Store> {
        (self.build)(&self.call, width)
    }
}

impl Chosen<tail::Build> {
    /// The tail of one KV head; `None` for no tail.
    pub fn build(&self, context: &Context<'_>) -> Option<Box<dyn Tail>> {
        (self.build)(&self.call, context)
    }
}

impl Chosen<read::Build> {
    /// The index of one KV head; `None` to read everything.
    pub fn build(&self, context: &Context<'_>) -> Option<Box<dyn Read>> {
        (self.build)(&self.call, context)
    }

    /// How many slots the tokens of a prompt read; `None` for all.
    pub fn of_prompt(&self) -> Option<usize> {
        let declared = self.method().declares("prompt");
        declared.then(|| self.integer("prompt")).flatten().filter(|&slots| slots > 0)
    }
}

impl Chosen<budget::Build> {
    /// The budget of a cache.
    pub fn build(&self) -> Box<dyn Budget> {
        (self.build)(&self.call)
    }
}
