//! What the crate's features choose: the TLS provider and the root certificates.

use std::{error::Error as StdError, fmt, sync::Arc};

use rustls::{ClientConfig, RootCertStore, crypto::CryptoProvider};
use tower::{BoxError, Layer};

use super::{Https, PlotonClient};
use crate::{api::Ploton, key::ApiKey, plan::Plan, stack::PlotonStack};

/// Makes a client of `https://api.ploton.ai` that is ready to use: HTTPS with HTTP/2 or HTTP/1.1, the whole
/// [`PlotonStack`], and [`Ploton`] on top.
///
/// For anything else than the defaults the three are put together by hand, as the example shows.
///
/// # Errors
///
/// Where no root certificate is found, which can happen with the feature `native-roots` only.
///
/// # Example
///
/// ```no_run
/// use tower_ploton::{ApiKey, Plan, api::NewTask, client::ploton_client};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let key = ApiKey::parse(&std::env::var("PLOTON_API_KEY")?)?;
/// let ploton = ploton_client(key, Plan::Production)?;
/// let task = ploton.create_task(&NewTask::new("Summarise invoice 42")?).await?;
/// println!("{}", task.id);
/// # Ok(())
/// # }
/// ```
///
/// The same by hand, against a fake on a loopback port:
///
/// ```
/// use tower::Layer;
/// use tower_ploton::{
///     ApiKey, BaseUrl, Plan, PlotonStack,
///     api::{NewTask, Ploton},
///     client::Https,
///     mock::FakePloton,
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = FakePloton::new().listen().await?;
/// let base_url = BaseUrl::parse(&format!("{}/v1", server.url()))?;
/// let origin = base_url.origin().clone();
///
/// let key = ApiKey::parse("pk_test_4f9d0c2b7a6e1583")?;
/// let stack = PlotonStack::new(key, Plan::Prototyping).origin(origin.clone());
/// let https = Https::new()?.plain_http_to(origin).client();
/// let ploton = Ploton::new(stack.layer(https)).base_url(base_url);
///
/// let task = ploton.create_task(&NewTask::new("Summarise invoice 42")?).await?;
/// assert_eq!(task.id.as_str(), "task_000001");
/// # Ok(())
/// # }
/// ```
pub fn ploton_client(key: ApiKey, plan: Plan) -> Result<PlotonClient, NoRoots> {
    let https = Https::new()?.client();
    Ok(Ploton::new(PlotonStack::new(key, plan).layer(https)))
}

impl Https {
    /// With the TLS provider and the root certificates that the crate's features choose.
    ///
    /// # Errors
    ///
    /// Where no root certificate is found, which can happen with the feature `native-roots` only.
    pub fn new() -> Result<Self, NoRoots> {
        Ok(Self::with_tls(by_features()?))
    }
}

fn by_features() -> Result<ClientConfig, NoRoots> {
    let roots = roots()?;
    let versions = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| NoRoots {
            source: Some(error.into()),
        })?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(feature = "aws-lc")]
fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

#[cfg(not(feature = "aws-lc"))]
fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

#[cfg(feature = "native-roots")]
fn roots() -> Result<RootCertStore, NoRoots> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // One that can't be read is no reason to trust none of the others.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let source = found.errors.into_iter().next().map(Into::into);
        return Err(NoRoots { source });
    }
    Ok(roots)
}

#[cfg(not(feature = "native-roots"))]
#[allow(
    clippy::unnecessary_wraps,
    reason = "the machine's certificates may be missing, Mozilla's are not"
)]
fn roots() -> Result<RootCertStore, NoRoots> {
    Ok(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect())
}

/// No root certificate was found that a server's could be checked against.
#[derive(Debug)]
pub struct NoRoots {
    /// What was found instead, if anything.
    source: Option<BoxError>,
}

impl fmt::Display for NoRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no root certificates were found")
    }
}

impl StdError for NoRoots {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
