//! `RateLimit` and `RateLimit-Policy`, in the words of every
//! [IETF draft](https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/) from 03 on:
//!
//! | draft | what it sends |
//! |---|---|
//! | 03 | `RateLimit-Limit: 10, 10;w=1, 1000;w=60`, `RateLimit-Remaining: 5`, `RateLimit-Reset: 30` |
//! | 04 to 06 | `RateLimit-Limit: 10`, the other two as before, `RateLimit-Policy: 10;w=1, 1000;w=60` |
//! | 07 | `RateLimit: limit=10, remaining=5, reset=30`, `RateLimit-Policy` as before |
//! | from 08 on | `RateLimit: "burst";r=5;t=30`, `RateLimit-Policy: "burst";q=10;w=1, "daily";q=1000;w=86400` |

use std::{borrow::Cow, time::Duration};

use http::HeaderName;
use sfv::{
    BareItemFromInput, KeyRef, Parser,
    visitor::{
        DictionaryVisitor, EntryVisitor, Ignored, InnerListVisitor, ItemVisitor, ListVisitor,
        ParameterVisitor,
    },
};

use super::{
    answer::Answer,
    few::{Few, TooMany},
    rate_limit::Said,
    when::{When, digits},
};

/// The wait until a limit that is used up is no more: of several, the longest, since all of them hold. After a refusal
/// the only limit counts even if something is left of it: the request may have cost more.
pub(super) fn wait(answer: Answer<'_>, refused: bool) -> Option<Duration> {
    let limits = limits(answer);
    let until = |limit: &Limit<'_>| answer.until_reset(limit.reset?);
    let used_up = limits.iter().filter(|limit| limit.remaining == Some(0));
    used_up.filter_map(until).max().or(match &*limits {
        [only] if refused => until(only),
        _ => None,
    })
}

/// What the only limit on requests says. Several contradict each other: nobody knows which one the next request meets
/// first. Limits on something else, as their policy's unit says, are not ours.
pub(super) fn said(answer: Answer<'_>) -> Option<Said> {
    let limits = limits(answer);
    if limits.is_empty() {
        return None;
    }
    let policies = list(answer, &RATELIMIT_POLICY).unwrap_or_default();
    let mut ours = limits
        .iter()
        .map(|limit| (limit, policy(&policies, limit)))
        .filter(|(_, policy)| policy.is_none_or(|policy| !policy.other_unit));
    let (limit, policy) = ours.next()?;
    if ours.next().is_some() {
        return None;
    }
    let quota = limit.quota.or_else(|| policy?.quota())?;
    let window = match policy {
        Some(policy) => policy.window(),
        None => limit.window.or_else(|| common_window(&policies, quota)),
    };
    let quota = u32::try_from(quota).ok()?;
    let remaining = u32::try_from(limit.remaining?).ok()?;
    Said::new(quota, remaining, limit.reset?, window)
}

/// Whether any of these headers is there: mostly none is, and to see that takes less time than to look up each.
pub(super) fn speaks(answer: Answer<'_>) -> bool {
    let mut names = answer.headers.keys().map(HeaderName::as_str);
    names.any(|name| name.starts_with("ratelimit"))
}

/// The window of the one policy that allows `limit`.
pub(super) fn window(answer: Answer<'_>, limit: u32) -> Option<Duration> {
    common_window(&list(answer, &RATELIMIT_POLICY)?, limit.into())
}

/// Reads a limit, and the window among the policies that draft 03 puts behind it. Envoy does so in `X-RateLimit-Limit`.
pub(super) fn limit_and_window(text: &str) -> Option<(u32, Option<Duration>)> {
    if let Some(limit) = digits(text) {
        return Some((limit, None));
    }
    let mut members = Few::default();
    Parser::new(text)
        .parse_list_with_visitor(Members(&mut members))
        .ok()?;
    let limit = members.first()?.number?;
    Some((u32::try_from(limit).ok()?, common_window(&members, limit)))
}

/// The window on which all policies agree that allow `quota` requests.
fn common_window(policies: &[Member<'_>], quota: u64) -> Option<Duration> {
    let mut windows = policies
        .iter()
        .filter(|policy| policy.quota() == Some(quota) && !policy.other_unit)
        .filter_map(Member::window);
    let window = windows.next()?;
    windows.all(|other| other == window).then_some(window)
}

/// The one policy that has the limit's name.
fn policy<'p, 'a>(policies: &'p [Member<'a>], limit: &Limit<'_>) -> Option<&'p Member<'a>> {
    let name = limit.name.as_ref()?;
    let mut named = policies.iter().filter(|p| p.name.as_ref() == Some(name));
    let policy = named.next()?;
    named.next().is_none().then_some(policy)
}

/// What is left of one policy, in whatever draft's words it was said.
#[derive(Default)]
struct Limit<'a> {
    /// From draft 08 on.
    name: Option<Cow<'a, str>>,
    /// Before draft 08; since then the policy has it.
    quota: Option<u64>,
    remaining: Option<u64>,
    reset: Option<When>,
    window: Option<Duration>,
}

fn limits(answer: Answer<'_>) -> Few<Limit<'_>> {
    let combined = answer.headers.contains_key(&RATELIMIT);
    let combined = combined.then(|| items(answer).or_else(|| numbers(answer)));
    combined
        .flatten()
        .or_else(|| headers_of_their_own(answer))
        .unwrap_or_default()
}

/// From draft 08 on.
fn items(answer: Answer<'_>) -> Option<Few<Limit<'_>>> {
    let mut limits = Few::default();
    for item in list(answer, &RATELIMIT)?.iter() {
        limits.push(Limit {
            remaining: Some(item.r?),
            reset: item.t.map(seconds),
            name: item.name.clone(),
            ..Limit::default()
        })?;
    }
    Some(limits)
}

/// Draft 07.
fn numbers(answer: Answer<'_>) -> Option<Few<Limit<'_>>> {
    let numbers = dictionary(answer, &RATELIMIT)?;
    let number = |key| number(&numbers, key);
    Few::one(Limit {
        quota: number("limit"),
        remaining: Some(number("remaining")?),
        reset: number("reset").map(seconds),
        ..Limit::default()
    })
}

/// Up to draft 06.
fn headers_of_their_own(answer: Answer<'_>) -> Option<Few<Limit<'_>>> {
    let remaining = answer.text(&RATELIMIT_REMAINING).and_then(digits::<u32>);
    let reset = answer.when(&RATELIMIT_RESET);
    if remaining.is_none() && reset.is_none() {
        return None;
    }
    let limit = answer.text(&RATELIMIT_LIMIT).and_then(limit_and_window);
    Few::one(Limit {
        quota: limit.map(|(limit, _)| limit.into()),
        remaining: remaining.map(Into::into),
        reset,
        window: limit.and_then(|(_, window)| window),
        ..Limit::default()
    })
}

/// Deltas, say the drafts; epochs, say some servers.
fn seconds(seconds: u64) -> When {
    When::from_number(Duration::from_secs(seconds))
}

/// The number that the key has: two would contradict each other.
fn number(members: &[Member<'_>], key: &str) -> Option<u64> {
    let mut named = members.iter().filter(|m| m.name.as_deref() == Some(key));
    let member = named.next()?;
    named.next().is_none().then_some(member.number).flatten()
}

/// A member of a list or dictionary, and those of its parameters that some draft knows.
#[derive(Default)]
struct Member<'a> {
    /// The key in a dictionary, the string in a list.
    name: Option<Cow<'a, str>>,
    number: Option<u64>,
    q: Option<u64>,
    r: Option<u64>,
    t: Option<u64>,
    w: Option<u64>,
    /// It counts something other than requests.
    other_unit: bool,
}

impl Member<'_> {
    fn quota(&self) -> Option<u64> {
        self.q.or(self.number)
    }

    fn window(&self) -> Option<Duration> {
        self.w.filter(|&w| w > 0).map(Duration::from_secs)
    }
}

/// A list may stand on several lines. `None` where the header is missing, any line is no list, or it is too long.
fn list<'a>(answer: Answer<'a>, name: &HeaderName) -> Option<Few<Member<'a>>> {
    members(answer, name, |line, members| {
        line.parse_list_with_visitor(members)
    })
}

fn dictionary<'a>(answer: Answer<'a>, name: &HeaderName) -> Option<Few<Member<'a>>> {
    members(answer, name, |line, members| {
        line.parse_dictionary_with_visitor(members)
    })
}

fn members<'a>(
    answer: Answer<'a>,
    name: &HeaderName,
    parse: impl Fn(Parser<'a>, Members<'_, 'a>) -> Result<(), sfv::Error>,
) -> Option<Few<Member<'a>>> {
    let mut members = Few::default();
    for value in answer.headers.get_all(name) {
        let line = Parser::new(value.to_str().ok()?.trim());
        parse(line, Members(&mut members)).ok()?;
    }
    (!members.is_empty()).then_some(members)
}

struct Members<'m, 'a>(&'m mut Few<Member<'a>>);

impl<'a> ListVisitor<'a> for Members<'_, 'a> {
    type Out = ();
    type Error = TooMany;

    fn entry(&mut self) -> Result<impl EntryVisitor<'a>, TooMany> {
        Ok(Entry {
            member: Member::default(),
            members: self.0,
        })
    }

    fn finish(self) -> Result<(), TooMany> {
        Ok(())
    }
}

impl<'a> DictionaryVisitor<'a> for Members<'_, 'a> {
    type Out = ();
    type Error = TooMany;

    fn entry(&mut self, key: &'a KeyRef) -> Result<impl EntryVisitor<'a>, TooMany> {
        Ok(Entry {
            member: Member {
                name: Some(key.as_str().into()),
                ..Member::default()
            },
            members: self.0,
        })
    }

    fn finish(self) -> Result<(), TooMany> {
        Ok(())
    }
}

/// A member that is being read.
struct Entry<'m, 'a> {
    member: Member<'a>,
    members: &'m mut Few<Member<'a>>,
}

impl<'a> EntryVisitor<'a> for Entry<'_, 'a> {
    type Error = TooMany;

    fn item(self) -> Result<impl ItemVisitor<'a>, TooMany> {
        Ok(self)
    }

    /// No draft has lists in its lists.
    fn inner_list(self) -> Result<impl InnerListVisitor<'a>, TooMany> {
        Ok(Ignored)
    }
}

impl<'a> ItemVisitor<'a> for Entry<'_, 'a> {
    type Out = ();
    type Error = TooMany;

    fn bare_item(
        mut self,
        item: BareItemFromInput<'a>,
    ) -> Result<impl ParameterVisitor<'a, Out = ()>, TooMany> {
        self.member.number = count(&item);
        if self.member.name.is_none() {
            self.member.name = text(item);
        }
        Ok(self)
    }
}

impl<'a> ParameterVisitor<'a> for Entry<'_, 'a> {
    type Out = ();
    type Error = TooMany;

    fn parameter(&mut self, key: &'a KeyRef, value: BareItemFromInput<'a>) -> Result<(), TooMany> {
        let member = &mut self.member;
        match key.as_str() {
            "q" => member.q = count(&value),
            "r" => member.r = count(&value),
            "t" => member.t = count(&value),
            "w" => member.w = count(&value),
            "qu" => member.other_unit = text(value).is_none_or(|unit| unit != "requests"),
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<(), TooMany> {
        self.members.push(self.member).ok_or(TooMany)
    }
}

fn count(item: &BareItemFromInput<'_>) -> Option<u64> {
    match item {
        BareItemFromInput::Integer(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

/// A name: the drafts want strings, some servers send tokens.
fn text<'a>(item: BareItemFromInput<'a>) -> Option<Cow<'a, str>> {
    match item {
        BareItemFromInput::String(Cow::Borrowed(name)) => Some(name.as_str().into()),
        BareItemFromInput::String(Cow::Owned(name)) => Some(name.as_str().to_owned().into()),
        BareItemFromInput::Token(name) => Some(name.as_str().into()),
        _ => None,
    }
}

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATELIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
