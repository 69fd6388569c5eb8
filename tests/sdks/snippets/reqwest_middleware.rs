use {
    reqwest::{Client, Response},
    reqwest_middleware::{ClientBuilder, ClientWithMiddleware},
    serde_json::json,
    tower_ploton::{PlotonStack, reqwest::PlotonMiddleware},
};

/// reqwest's client, with the stack as a middleware.
pub fn ploton(client: Client, stack: PlotonStack) -> ClientWithMiddleware {
    ClientBuilder::new(client)
        .with(PlotonMiddleware::new(stack))
        .build()
}

pub async fn create(
    ploton: &ClientWithMiddleware,
    url: &str,
) -> reqwest_middleware::Result<Response> {
    let task = json!({"prompt": "Pay invoice 42"});
    ploton
        .post(format!("{url}/v1/tasks"))
        .json(&task)
        .send()
        .await
}
