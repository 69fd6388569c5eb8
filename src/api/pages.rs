//! Listings, item by item.

use std::{
    collections::VecDeque,
    error::Error as StdError,
    fmt,
    future::poll_fn,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_core::Stream;
use http_body_util::Full;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    failure::{Error, PagesRepeat, UnreadableAnswer},
    fetch::{Call, Fetching, fetch},
    seen::Seen,
    service::PlotonService,
};
use crate::base_url::BaseUrl;

/// How many items a page has: 1 to 100. Default: 100, which costs the fewest requests.
///
/// # Example
///
/// ```
/// use tower_ploton::api::PageSize;
///
/// assert_eq!(PageSize::new(20)?.get(), 20);
/// assert_eq!(PageSize::default(), PageSize::new(100)?);
/// assert!(PageSize::new(0).is_err() && PageSize::new(101).is_err());
/// # Ok::<(), tower_ploton::api::InvalidPageSize>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSize(u8);

impl PageSize {
    /// A page of this many items.
    ///
    /// # Errors
    ///
    /// Where it is 0 or above 100.
    pub const fn new(items: u8) -> Result<Self, InvalidPageSize> {
        if items == 0 || items > Self::default_size().0 {
            return Err(InvalidPageSize(()));
        }
        Ok(Self(items))
    }

    /// How many items a page has.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    const fn default_size() -> Self {
        Self(100)
    }
}

impl Default for PageSize {
    fn default() -> Self {
        Self::default_size()
    }
}

/// A page has 1 to 100 items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPageSize(());

impl fmt::Display for InvalidPageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a page has 1 to 100 items")
    }
}

impl StdError for InvalidPageSize {}

/// A listing as a stream of its items: [`Pages`] says how.
///
/// # Example
///
/// ```
/// use serde::Deserialize;
/// use tower::Layer;
/// use tower_ploton::{ApiKey, Plan, PlotonStack, api::{PageSize, pages}, mock::FakePloton};
///
/// #[derive(Deserialize)]
/// struct Row {
///     id: String,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let stack = PlotonStack::new(ApiKey::parse("pk_test_4f9d0c2b7a6e1583")?, Plan::Production);
/// let service = stack.layer(FakePloton::new());
///
/// let mut rows = pages::<Row>(service, "/tasks", PageSize::default()).prefetch(true);
/// while let Some(row) = rows.next().await {
///     println!("{}", row?.id);
/// }
/// assert_eq!(rows.offset(), 0); // there were none
/// # Ok(())
/// # }
/// ```
#[must_use = "a stream does nothing until it is polled"]
pub fn pages<T: DeserializeOwned>(
    service: impl PlotonService,
    path: &str,
    size: PageSize,
) -> Pages<T, impl PlotonService> {
    Pages::new(service, BaseUrl::default(), path, size, Fetching::new())
}

/// The items of a listing, page after page, as a [`Stream`].
///
/// Each page is a GET through the service. The offset grows by the items that came; the end is where Ploton says
/// `"has_more": false`, or a page is empty. The path may have a query, with everything but `limit` and `offset`.
///
/// A listing may change while it is read. An item whose `id` was handed out before is left out, so items that are created
/// meanwhile and push others to the next page let none come twice. A listing that does not move on, for three pages, is
/// an error, as is a server that knows no offset.
///
/// After an error the stream ends: [`offset`](Self::offset) says where to start again.
///
/// # Errors
///
/// An item is an [`Error`] where a page did not come, or an item is no `T`.
pub struct Pages<T, S, B = Full<Bytes>> {
    service: S,
    base_url: BaseUrl,
    path: Box<str>,
    size: PageSize,
    fetching: Fetching,
    prefetch: bool,
    /// The rest of the page that is being handed out.
    page: VecDeque<Value>,
    /// The offset of the item that is handed out next.
    offset: u64,
    /// The offset of the page that is fetched next.
    next_page: u64,
    state: State,
    seen: Seen,
    /// Told of each item that is handed out.
    watch: Option<Watch<T>>,
    item: PhantomData<fn(B) -> T>,
}

pub(super) type Watch<T> = Box<dyn Fn(&T) + Send>;

enum State {
    /// There is another page, and nobody has asked for it.
    Idle,
    Fetching(PageFuture),
    /// It came before the one ahead of it was used up.
    Fetched(Result<Page, Error>),
    Ended,
}

type PageFuture = Pin<Box<dyn Future<Output = Result<Page, Error>> + Send>>;

#[derive(Deserialize)]
struct Page {
    data: Vec<Value>,
    /// Where it does not say, an empty page will.
    has_more: Option<bool>,
}

impl<T, S, B> Pages<T, S, B>
where
    T: DeserializeOwned,
    S: PlotonService<B>,
    B: From<Bytes> + Send + 'static,
{
    pub(super) fn new(
        service: S,
        base_url: BaseUrl,
        path: &str,
        size: PageSize,
        fetching: Fetching,
    ) -> Self {
        Self {
            service,
            base_url,
            path: path.into(),
            size,
            fetching,
            prefetch: false,
            page: VecDeque::new(),
            offset: 0,
            next_page: 0,
            state: State::Idle,
            seen: Seen::default(),
            watch: None,
            item: PhantomData,
        }
    }

    pub(super) fn watched(mut self, watch: Option<Watch<T>>) -> Self {
        self.watch = watch;
        self
    }

    /// Where the API is. Default: `https://api.ploton.ai/v1`, or that of the [`Ploton`](super::Ploton) it was made by.
    #[must_use]
    pub fn base_url(mut self, base_url: BaseUrl) -> Self {
        self.base_url = base_url;
        self
    }

    /// How many items a page has. Default: 100.
    #[must_use]
    pub fn page_size(mut self, size: PageSize) -> Self {
        self.size = size;
        self
    }

    /// Begins with this item, counted from 0. To be set before the first item is asked for. Default: 0.
    #[must_use]
    pub fn from_offset(mut self, offset: u64) -> Self {
        self.offset = offset;
        self.next_page = offset;
        self
    }

    /// Whether the next page is asked for while the items of one are still handed out. Never more than one is. It goes on
    /// only while the stream is polled, except for what the HTTP client does by itself. Default: `false`.
    #[must_use]
    pub fn prefetch(mut self, prefetch: bool) -> Self {
        self.prefetch = prefetch;
        self
    }

    /// The offset of the item that comes next: where to start again, be it after an error or in another process.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// The next item; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<T, Error>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    fn fetch(&self) -> PageFuture {
        let (path, size, offset) = (&self.path, self.size.0, self.next_page);
        let and = if path.contains('?') { '&' } else { '?' };
        let uri = self
            .base_url
            .join(&format!("{path}{and}limit={size}&offset={offset}"));
        let (service, fetching) = (self.service.clone(), self.fetching.clone());
        Box::pin(async move {
            let uri = uri.map_err(Error::not_made)?;
            let (_, page) = fetch::<Page, S, B>(service, Call::get(uri), fetching).await?;
            Ok(page)
        })
    }

    /// Begins with a page that came.
    fn turn_to(&mut self, page: Page) -> Result<(), Error> {
        let received = page.data.len() as u64; // fits: a length is at most 64 bits
        if received > 0 && self.seen.stands_still(&page.data) {
            return Err(Error::PagesRepeat(PagesRepeat {
                offset: self.offset,
            }));
        }
        let more = received > 0 && page.has_more.unwrap_or(true);
        self.next_page = self.next_page.saturating_add(received);
        self.page = page.data.into();
        self.state = match (more, self.prefetch) {
            (false, _) => State::Ended,
            (true, false) => State::Idle,
            (true, true) => State::Fetching(self.fetch()),
        };
        Ok(())
    }

    /// The next item of this page that was not handed out before.
    fn next_of_page(&mut self) -> Option<Result<T, Error>> {
        while let Some(item) = self.page.pop_front() {
            if self.seen.is_new(&item) {
                let item = T::deserialize(&item)
                    .map_err(|error| Error::Unreadable(UnreadableAnswer::item(&item, &error)));
                if let Ok(item) = &item {
                    self.offset = self.offset.saturating_add(1);
                    if let Some(watch) = &self.watch {
                        watch(item);
                    }
                }
                return Some(item);
            }
            self.offset = self.offset.saturating_add(1);
        }
        None
    }

    fn end(&mut self, error: Error) -> Poll<Option<Result<T, Error>>> {
        self.state = State::Ended;
        self.page.clear();
        Poll::Ready(Some(Err(error)))
    }
}

impl<T, S, B> Stream for Pages<T, S, B>
where
    T: DeserializeOwned,
    S: PlotonService<B>,
    B: From<Bytes> + Send + 'static,
{
    type Item = Result<T, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let State::Fetching(page) = &mut this.state {
                if let Poll::Ready(page) = page.as_mut().poll(cx) {
                    this.state = State::Fetched(page);
                }
            }
            match this.next_of_page() {
                Some(Err(error)) => return this.end(error),
                Some(item) => return Poll::Ready(Some(item)),
                None => {}
            }
            match std::mem::replace(&mut this.state, State::Ended) {
                State::Idle => this.state = State::Fetching(this.fetch()),
                State::Fetching(page) => {
                    this.state = State::Fetching(page); // it was polled above
                    return Poll::Pending;
                }
                State::Fetched(page) => {
                    if let Err(error) = page.and_then(|page| this.turn_to(page)) {
                        return this.end(error);
                    }
                }
                State::Ended => return Poll::Ready(None),
            }
        }
    }
}

/// Nothing in it is pinned in place.
impl<T, S, B> Unpin for Pages<T, S, B> {}

impl<T, S, B> fmt::Debug for Pages<T, S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages")
            .field("path", &self.path)
            .field("size", &self.size)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}
