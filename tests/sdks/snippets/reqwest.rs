use {
    reqwest::{Client, Response},
    serde_json::json,
    tower::{BoxError, Service, ServiceBuilder, ServiceExt},
    tower_ploton::{
        PlotonStack,
        reqwest::{FromReqwest, FromReqwestService, IntoReqwest, IntoReqwestService},
        stack::StackService,
    },
};

pub type Ploton = FromReqwestService<StackService<IntoReqwestService<Client>>>;

/// reqwest's client, through the stack.
pub fn ploton(client: Client, stack: PlotonStack) -> Ploton {
    ServiceBuilder::new()
        .layer(FromReqwest::new())
        .layer(stack)
        .layer(IntoReqwest::new())
        .service(client)
}

pub async fn create(client: &Client, mut ploton: Ploton, url: &str) -> Result<Response, BoxError> {
    let task = json!({"prompt": "Pay invoice 42"});
    let request = client.post(format!("{url}/v1/tasks")).json(&task).build()?;
    ploton.ready().await?.call(request).await
}
