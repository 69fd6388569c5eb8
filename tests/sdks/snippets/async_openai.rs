use {
    async_openai::{
        Client, config::OpenAIConfig, error::OpenAIError, middleware::HttpRequestFactory,
    },
    http::header::AUTHORIZATION,
    tower::{ServiceBuilder, ServiceExt, service_fn},
    tower_ploton::{
        PlotonStack,
        reqwest::{FromReqwest, IntoReqwest},
    },
};

/// async-openai's client, by its feature `middleware` through the stack.
pub fn client(
    http: reqwest::Client,
    config: OpenAIConfig,
    stack: PlotonStack,
) -> Client<OpenAIConfig> {
    let service = ServiceBuilder::new()
        .layer(FromReqwest::new())
        .layer(stack)
        .layer(IntoReqwest::new())
        .service(http.clone());
    let service = service_fn(move |made: HttpRequestFactory| {
        let service = service.clone();
        async move {
            let mut request = made.build().await?;
            request.headers_mut().remove(AUTHORIZATION); // `PlotonAuth` keeps one that is there
            Ok::<_, OpenAIError>(service.oneshot(request).await?)
        }
    });
    Client::build(http, config).with_http_service(service)
}
