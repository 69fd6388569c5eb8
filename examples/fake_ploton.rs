//! Serves a fake Ploton on a loopback port, for curl or another language.
//!
//! `cargo run --example fake_ploton -- [--port N] [--plan prototyping|production] [--faults]`

use std::{env, net::Ipv4Addr};

use http::StatusCode;
use tower::BoxError;
use tower_ploton::{
    Plan,
    mock::{FakePloton, Fault},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let mut fake = FakePloton::new();
    let mut port = 0;
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--port" => {
                let number = arguments.next().and_then(|port| port.parse().ok());
                port = number.ok_or("--port needs a number of 0 to 65535")?;
            }
            "--plan" => {
                fake = fake.plan(match arguments.next().as_deref() {
                    Some("prototyping") => Plan::Prototyping,
                    Some("production") => Plan::Production,
                    _ => return Err("--plan is prototyping or production".into()),
                });
            }
            "--faults" => {
                fake = fake
                    .fault_rate(Fault::Status(StatusCode::INTERNAL_SERVER_ERROR), 0.10)
                    .fault_rate(Fault::CutAfter, 0.05);
            }
            other => {
                return Err(format!(
                    "unknown argument {other}: there are --port, --plan and --faults"
                )
                .into());
            }
        }
    }
    let server = fake.listen_on((Ipv4Addr::LOCALHOST, port).into()).await?;
    println!(
        "A fake Ploton listens on {} until Ctrl-C. Try:\n",
        server.url()
    );
    println!(
        "curl {}/v1/tasks -H 'Authorization: Bearer pk_test_example' \\",
        server.url()
    );
    println!(
        "    -H 'Content-Type: application/json' -H 'Idempotency-Key: one' -d '{{\"prompt\":\"Hello\"}}'"
    );
    tokio::signal::ctrl_c().await?;
    println!("\n{:?}", fake.counts());
    Ok(())
}
