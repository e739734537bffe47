//! Who may come in: whoever has the secret of the address, from this machine, by this address, and from
//! no other page. Other programs' pages in the same browser can reach the port too: they know no
//! secret, get no cookie along, and their origin is refused.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::app::App;

/// The name of the cookie; the port is in it, so that two studios do not take each other's.
fn cookie(app: &App) -> String {
    format!("scumble-{}", app.port)
}

/// What a page may load: what comes from here, and pictures that it made itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; \
    connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// The same for a report, which is one file with everything in it: it may run what it carries, and
/// reach nothing.
const REPORT: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data: blob:; \
    form-action 'none'; base-uri 'none'; frame-ancestors 'self'; sandbox allow-scripts allow-downloads allow-popups";

/// Lets in or refuses, and puts the headers on what goes out.
pub(crate) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let report = request.uri().path().starts_with("/file/");
    let mut response = match admitted(&app, &request) {
        Ok(true) => next.run(request).await,
        // Who brings the secret gets the cookie, and an address without it.
        Ok(false) => welcome(&app),
        Err(why) => (StatusCode::FORBIDDEN, why).into_response(),
    };
    let headers = response.headers_mut();
    // A page to rate is shown in a frame of the studio's, and nowhere else.
    let (policy, frames) = match report {
        true => (REPORT, "SAMEORIGIN"),
        false => (POLICY, "DENY"),
    };
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, frames),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Whether a request may pass; `false` for one that brings the secret in its address.
fn admitted(app: &App, request: &Request<Body>) -> Result<bool, &'static str> {
    let headers = request.headers();
    let host = text(headers, header::HOST);
    let hosts = [
        format!("127.0.0.1:{}", app.port),
        format!("localhost:{}", app.port),
    ];
    if !host.is_some_and(|host| hosts.iter().any(|known| known == host)) {
        return Err("this is not the address of the studio");
    }
    let origin = text(headers, header::ORIGIN);
    let own = |origin: &str| hosts.iter().any(|host| origin == format!("http://{host}"));
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    if origin.is_some_and(|origin| !own(origin)) || (changes && origin.is_none()) {
        return Err("another page may not ask the studio for anything");
    }
    // Browsers say where a request begins; only the first visit may come from elsewhere.
    let site = headers.get("sec-fetch-site").and_then(|v| v.to_str().ok());
    let query = request.uri().query().unwrap_or_default();
    let secret = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("token="));
    if request.uri().path() == "/" && secret.is_some_and(|secret| same(secret, &app.token)) {
        return Ok(false);
    }
    if site.is_some_and(|site| !["same-origin", "none"].contains(&site)) {
        return Err("another page may not ask the studio for anything");
    }
    let name = format!("{}=", cookie(app));
    let cookies = headers.get_all(header::COOKIE).iter();
    let mut cookies = cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'));
    if cookies.any(|one| {
        let value = one.trim().strip_prefix(&name);
        value.is_some_and(|value| same(value, &app.token))
    }) {
        Ok(true)
    } else {
        Err("open the address that `scumble studio` printed: it has the key in it")
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether two secrets are the same, in a time that says nothing about where they differ.
fn same(a: &str, b: &str) -> bool {
    blake3::hash(a.as_bytes()) == blake3::hash(b.as_bytes())
}

fn welcome(app: &App) -> Response {
    let cookie = format!(
        "{}={}; Path=/; HttpOnly; SameSite=Strict",
        cookie(app),
        app.token
    );
    // A page of our own that goes on by itself: a cookie of the strict kind is not sent along with a
    // redirect from elsewhere.
    let page = "<!doctype html><meta charset=\"utf-8\"><link rel=\"icon\" href=\"data:,\"><meta http-equiv=\"refresh\" content=\"0; url=/erase\"><title>scumble</title>\
        <p><a href=\"/erase\">Go on</a></p>";
    (
        [
            (header::SET_COOKIE, cookie),
            (header::CONTENT_TYPE, "text/html; charset=utf-8".into()),
        ],
        page,
    )
        .into_response()
}
