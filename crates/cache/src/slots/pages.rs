//! The pages of a head, and what they take together.

use crate::page::Page;
use std::mem::size_of;
use std::ops::Deref;
use std::sync::Arc;

/// What an [`Arc`] allocates beside its content: two counts.
const ARC_COUNTS: usize = 2 * size_of::<usize>();

/// Pages that forks may share. What they take is asked for several times a token, and they lie all over memory: so it is known.
#[derive(Clone, Default)]
pub(crate) struct Pages {
    pages: Vec<Arc<Page>>,
    /// Heap bytes of the pages.
    bytes: usize,
}

impl Deref for Pages {
    type Target = [Arc<Page>];

    fn deref(&self) -> &[Arc<Page>] {
        &self.pages
    }
}

impl From<Vec<Arc<Page>>> for Pages {
    fn from(pages: Vec<Arc<Page>>) -> Self {
        let bytes = pages.iter().map(|page| Pages::bytes_of(page)).sum();
        Pages { pages, bytes }
    }
}

impl Pages {
    /// Heap bytes of a page without its strips and its grid.
    pub(super) const EACH: usize = ARC_COUNTS + size_of::<Page>();

    /// Heap bytes of a page.
    pub(super) fn bytes_of(page: &Page) -> usize {
        Self::EACH + page.bytes()
    }

    /// Heap bytes of all pages but the last `count`.
    pub(super) fn bytes_before_last(&self, count: usize) -> usize {
        self.bytes - self.pages.iter().rev().take(count).map(|page| Self::bytes_of(page)).sum::<usize>()
    }

    /// Heap bytes of the table.
    pub(super) fn table_bytes(&self) -> usize {
        self.pages.capacity() * size_of::<Arc<Page>>()
    }

    /// Heap bytes of all pages and of the table.
    pub(super) fn bytes(&self) -> usize {
        let sum = || self.pages.iter().map(|page| Self::bytes_of(page)).sum::<usize>();
        debug_assert_eq!(self.bytes, sum(), "a page has changed its size unseen");
        self.bytes + self.table_bytes()
    }

    /// Adds a page.
    pub(super) fn push(&mut self, page: Page) {
        self.bytes += Self::bytes_of(&page);
        self.pages.reserve_exact(1);
        self.pages.push(Arc::new(page));
    }

    /// Gives the last page back.
    pub(super) fn pop(&mut self) {
        self.bytes -= self.pages.pop().map_or(0, |page| Self::bytes_of(&page));
        self.pages.shrink_to_fit();
    }

    /// A page to write into, a copy of its own if a fork shares it.
    pub(super) fn writable(&mut self, index: usize) -> &mut Page {
        Arc::make_mut(&mut self.pages[index])
    }

    /// Lets `f` change a page as it likes.
    pub(super) fn change(&mut self, index: usize, f: impl FnOnce(&mut Arc<Page>)) {
        let page = &mut self.pages[index];
        self.bytes -= Self::bytes_of(page);
        f(page);
        self.bytes += Self::bytes_of(page);
    }

    /// Copies the pages that a fork shares.
    pub(super) fn unshare(&mut self) {
        (0..self.pages.len()).for_each(|index| {
            self.writable(index);
        });
    }
}
