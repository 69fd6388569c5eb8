//! What the example `watch` consists of.

mod load;
mod serve;
mod status;
mod summary;
mod weather;

use std::{net::Ipv4Addr, num::NonZeroU32, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::{net::TcpListener, time::Instant};
use tower::{BoxError, ServiceBuilder};
use tower_ploton::{
    ApiKey, Origin, Plan, PlotonRateLimit, PlotonRetry, PlotonStack, metrics::BUCKETS,
};

use self::{load::Load, serve::Server, status::Status, summary::Summary, weather::Weather};

/// What the command line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long the load lasts.
    seconds: u32,
    /// Of the metrics; 0 for any.
    port: u16,
}

impl Options {
    /// Reads `--seconds N`, of 10 to 3600, 60 by default, and `--port N`, any by default.
    ///
    /// # Errors
    ///
    /// An argument that is none of these, or no such number.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, BoxError> {
        let mut options = Self {
            seconds: 60,
            port: 0,
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let value = arguments.next().unwrap_or_default();
            match argument.as_str() {
                "--seconds" => {
                    let seconds = value.parse().ok();
                    let seconds = seconds.filter(|seconds| (10..=3_600).contains(seconds));
                    options.seconds = seconds.ok_or("--seconds needs a number of 10 to 3600")?;
                }
                "--port" => {
                    let port = value.parse().ok();
                    options.port = port.ok_or("--port needs a number of 0 to 65535")?;
                }
                other => {
                    let text = format!("unknown argument {other}: there are --seconds and --port");
                    return Err(text.into());
                }
            }
        }
        Ok(options)
    }
}

/// Runs the load to its end and prints what came of it. Whether nothing was created twice.
///
/// # Errors
///
/// A port can't be opened, or there is a recorder of metrics already.
pub async fn run(options: Options) -> Result<bool, BoxError> {
    let recorder = PrometheusBuilder::new().set_buckets(BUCKETS)?;
    let recorder = recorder.build_recorder();
    let metrics = recorder.handle();
    metrics::set_global_recorder(recorder)?;
    tower_ploton::metrics::start();

    let lasts = Duration::from_secs(options.seconds.into());
    let weather = Weather::new(PLAN, WINDOW, lasts);
    let ploton = Server::start(listen(0).await?, weather.service())?;
    let scraped = metrics.clone();
    let scrapes = service_fn(move |request: Request<_>| scrape(request, scraped.clone()));
    let scrapes = Server::start(listen(options.port).await?, scrapes)?;
    println!("A fake Ploton allows {PLAN} requests in {WINDOW:?}. {weather}");
    println!("Metrics are on {}/metrics.\n", scrapes.url());

    let limit = PlotonRateLimit::new(Plan::Enterprise {
        requests_per_minute: PLAN,
        concurrent_tasks: NonZeroU32::MAX,
    });
    let stack = PlotonStack::new(ApiKey::parse(KEY)?, Plan::Production)
        .rate_limit(limit.window(WINDOW))
        .retry(PlotonRetry::new().attempts(8))
        .attempt_timeout(Duration::from_secs(2))
        .origin(Origin::parse(&ploton.url())?);
    let (limit, quota) = (stack.rate_limit_handle(), stack.retry_handle());
    let service = ServiceBuilder::new()
        .layer(stack)
        .service(Client::builder(TokioExecutor::new()).build_http());

    let start = Instant::now();
    let neighbour = weather.neighbour();
    let status = Status::new(weather.clone(), limit, quota, metrics.clone());
    let status = tokio::spawn(status.print(start));
    let load = Load::new(service, ploton.url());
    let answered = load.run(start, lasts).await;
    status.abort();
    neighbour.abort();

    let summary = Summary::of(&answered, &weather, &metrics.render());
    println!("\n{summary}");
    Ok(summary.holds())
}

async fn listen(port: u16) -> Result<TcpListener, BoxError> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?)
}

/// The answer to a scrape.
async fn scrape<B>(
    request: Request<B>,
    metrics: PrometheusHandle,
) -> Result<Response<Full<Bytes>>, http::Error> {
    if request.uri().path() != "/metrics" {
        let missing = Response::builder().status(StatusCode::NOT_FOUND);
        return missing.body(Full::from("there is /metrics\n"));
    }
    Response::builder()
        .header(CONTENT_TYPE, "text/plain; version=0.0.4")
        .body(metrics.render().into())
}

const KEY: &str = "pk_test_4f9d0c2b7a6e1583";
/// Requests in a window: 20 a second.
const PLAN: NonZeroU32 = NonZeroU32::new(40).expect("not 0");
/// A minute is long to look at.
const WINDOW: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, BoxError> {
        Options::parse(arguments.iter().map(|argument| (*argument).to_owned()))
    }

    #[test]
    fn arguments_are_read_or_refused_by_name() {
        let read = |arguments| parse(arguments).map_err(|error| error.to_string());
        let options = |seconds, port| Ok(Options { seconds, port });
        assert_eq!(read(&[]), options(60, 0));
        assert_eq!(
            read(&["--seconds", "20", "--port", "9464"]),
            options(20, 9464)
        );
        for arguments in [
            &["--seconds"][..],
            &["--seconds", "9"],
            &["--seconds", "3601"],
            &["--port", "65536"],
            &["--help", "me"],
        ] {
            let error = read(arguments).expect_err("refused");
            assert!(error.contains(arguments[0]), "{error}");
        }
    }
}
