use {
    bytes::Bytes,
    http_body_util::Full,
    hyper_rustls::HttpsConnector,
    hyper_util::{
        client::legacy::{Client, connect::HttpConnector},
        rt::TokioExecutor,
    },
    tower::Layer,
    tower_ploton::{PlotonStack, stack::StackService},
};

pub type Ploton = StackService<Client<HttpsConnector<HttpConnector>, Full<Bytes>>>;

/// hyper-util's client, through the stack.
pub fn ploton(https: HttpsConnector<HttpConnector>, stack: &PlotonStack) -> Ploton {
    stack.layer(Client::builder(TokioExecutor::new()).build(https))
}
