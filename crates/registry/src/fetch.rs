//! Reading: what a tag means, manifests, blobs from any byte on, the list of tags.

use hyper::header::{ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, LINK, RANGE};
use hyper::{Method, StatusCode};
use model::Error;
use model::digest::Digest;
use serde::Deserialize;

use crate::endpoint::Endpoint;
use crate::exchange::Answer;
use crate::failure::{Fault, Reason, Result};
use crate::session::{Ask, Need, Repository};

/// Longest manifest or index.
pub const MANIFEST_BYTES: usize = 4 << 20;
/// Longest page of tags, and most pages and tags.
const TAGS_BYTES: usize = 4 << 20;
const TAG_PAGES: usize = 1000;
const TAGS: usize = 10_000;
/// Longest body of a blob that is not wanted.
const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Everything that can be a manifest.
const MANIFESTS: &str = "application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, */*";

/// A manifest or an index, its bytes verified against its digest when one was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// What the registry calls it, without parameters; may be empty or wrong.
    pub media_type: String,
    /// As it came.
    pub bytes: bytes::Bytes,
}

/// What a tag means, as far as a HEAD request tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Of the manifest.
    pub digest: Digest,
    /// What the registry calls it.
    pub media_type: String,
    /// Bytes, if told.
    pub size: Option<u64>,
}

/// A blob on its way.
pub struct Blob {
    answer: Answer,
    /// The first byte that comes: what was asked for, or 0 when the registry knows no ranges.
    pub offset: u64,
    /// Bytes still to come.
    left: u64,
}

impl Repository {
    /// What a tag or digest means now; `None` when the registry does not tell by HEAD.
    pub async fn resolve(&self, tag: &str) -> Result<Option<Resolved>> {
        self.anywhere(Need::Resolve, |endpoint| self.head(endpoint, tag)).await
    }

    async fn head(&self, endpoint: &Endpoint, tag: &str) -> Result<Option<Resolved>> {
        let url = self.url(endpoint, &format!("manifests/{tag}"));
        let answer = self.send(endpoint, Ask::new(Method::HEAD, url).header(ACCEPT, MANIFESTS)).await?;
        if answer.status != StatusCode::OK {
            // A refusal of HEAD has no text: the GET that follows gets one. A mirror is left at once.
            return match endpoint.mirror {
                true => Err(crate::session::refusal(answer).await),
                false => Ok(None),
            };
        }
        let digest = answer.header(DOCKER_CONTENT_DIGEST).and_then(|text| Digest::parse(text).ok());
        let size = answer.header(CONTENT_LENGTH).and_then(|text| text.parse().ok());
        let media_type = media_type(&answer);
        answer.discard().await;
        Ok(digest.map(|digest| Resolved { digest, media_type, size }))
    }

    /// A manifest by tag.
    pub async fn manifest(&self, tag: &str) -> Result<Document> {
        self.anywhere(Need::Resolve, |endpoint| self.document(endpoint, tag)).await
    }

    /// A manifest by digest; the caller verifies it.
    pub async fn manifest_by_digest(&self, digest: &Digest) -> Result<Document> {
        self.anywhere(Need::Content, |endpoint| self.document(endpoint, digest.as_str())).await
    }

    /// A manifest by tag, if the repository has the tag.
    pub async fn manifest_if_any(&self, tag: &str) -> Result<Option<Document>> {
        match self.manifest(tag).await {
            Err(fault) if matches!(fault.reason, Reason::ManifestUnknown | Reason::NameUnknown) => Ok(None),
            document => document.map(Some),
        }
    }

    /// The index of the manifests that refer to one; `None` when the registry has none or keeps no such index.
    pub async fn referrers(&self, digest: &Digest) -> Result<Option<Document>> {
        let told = self.anywhere(Need::Resolve, |endpoint| self.referrers_at(endpoint, digest)).await?;
        match told {
            Some(document) => Ok(Some(document)),
            // Where registries know no referrers, clients keep the index under a tag.
            None => self.manifest_if_any(&referrers_tag(digest)).await,
        }
    }

    async fn referrers_at(&self, endpoint: &Endpoint, digest: &Digest) -> Result<Option<Document>> {
        let url = self.url(endpoint, &format!("referrers/{digest}"));
        let answer = self.send(endpoint, Ask::new(Method::GET, url)).await?;
        match answer.status {
            StatusCode::NOT_FOUND if !endpoint.mirror => {
                answer.discard().await;
                Ok(None)
            }
            status if status.is_success() => {
                let media_type = media_type(&answer);
                Ok(Some(Document { media_type, bytes: answer.bytes(MANIFEST_BYTES).await? }))
            }
            _ => Err(crate::session::refusal(answer).await),
        }
    }

    async fn document(&self, endpoint: &Endpoint, tag: &str) -> Result<Document> {
        let url = self.url(endpoint, &format!("manifests/{tag}"));
        let answer = self.ask(endpoint, Ask::new(Method::GET, url).header(ACCEPT, MANIFESTS)).await?;
        let media_type = media_type(&answer);
        let bytes = answer.bytes(MANIFEST_BYTES).await?;
        Ok(Document { media_type, bytes })
    }

    /// A blob of `size` bytes from `offset` on. A registry that knows no ranges sends it whole; one may also send a piece
    /// of what was asked for. [`Reason::Range`]: what it sends is not from there.
    pub async fn blob(&self, digest: &Digest, size: u64, offset: u64) -> Result<Blob> {
        self.anywhere(Need::Content, |endpoint| self.blob_at(endpoint, (digest, size), offset)).await
    }

    async fn blob_at(&self, endpoint: &Endpoint, (digest, size): (&Digest, u64), offset: u64) -> Result<Blob> {
        let url = self.url(endpoint, &format!("blobs/{digest}"));
        let mut ask = Ask::new(Method::GET, url).header(ACCEPT, "*/*");
        if offset > 0 {
            ask = ask.header(RANGE, &format!("bytes={offset}-"));
        }
        let answer = self.send(endpoint, ask).await?;
        let wrong = |why: String| Fault::nonsense(format!("{}: {why}", answer.what()));
        let from = match answer.status {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT => {
                let range = answer.header(CONTENT_RANGE).unwrap_or_default();
                // Of a compressed answer a range is one of the compressed bytes.
                if offset == 0 || answer.is_coded() || range_start(range) != Some(offset) {
                    return Err(wrong(format!("unexpected range {range:?}")).because(Reason::Range));
                }
                offset
            }
            StatusCode::NOT_FOUND => {
                let mut fault = crate::session::refusal(answer).await;
                fault.reason = Reason::BlobUnknown;
                return Err(fault);
            }
            _ => return Err(crate::session::refusal(answer).await),
        };
        let left = size - from;
        match answer.header(CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok()) {
            // Less of the range than was asked for: the caller asks for the rest.
            Some(length) if from > 0 && (1..left).contains(&length) => Ok(Blob { answer, offset: from, left: length }),
            Some(length) if length != left => {
                let all = length.saturating_add(from);
                Err(wrong(format!("unexpected size: {all} bytes announced, want {size}")))
            }
            _ => Ok(Blob { answer, offset: from, left }),
        }
    }

    /// Whether a blob is there.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool> {
        self.anywhere(Need::Push, |endpoint| async move {
            let url = self.url(endpoint, &format!("blobs/{digest}"));
            let answer = self.send(endpoint, Ask::new(Method::HEAD, url)).await?;
            match answer.status {
                StatusCode::NOT_FOUND => Ok(false),
                status if status.is_success() => Ok(true),
                _ => Err(crate::session::refusal(answer).await),
            }
        })
        .await
    }

    /// All tags, in the registry's order.
    pub async fn tags(&self) -> Result<Vec<String>> {
        self.anywhere(Need::Resolve, |endpoint| self.tags_at(endpoint)).await
    }

    async fn tags_at(&self, endpoint: &Endpoint) -> Result<Vec<String>> {
        let mut url = self.url(endpoint, "tags/list");
        let mut all = Vec::new();
        for _ in 0..TAG_PAGES {
            let answer = self.ask(endpoint, Ask::new(Method::GET, url.clone())).await?;
            let next = answer.header(LINK).and_then(next_page).map(|link| answer.url.join(link)).transpose()?;
            let bytes = answer.bytes(TAGS_BYTES).await?;
            all.extend(page(&bytes)?);
            if all.len() > TAGS {
                return Err(Error::invalid(format!("the repository has more than {TAGS} tags")).into());
            }
            match next {
                // Pages of another host would be asked for without credentials and are not this registry's word.
                Some(next) if next.same_origin(&endpoint.root) => url = next,
                _ => return Ok(all),
            }
        }
        Err(Fault::nonsense("the list of tags does not end"))
    }
}

/// The tag of the index of referrers, at most 32 characters of the algorithm and 64 digits (OCI distribution, "Referrers Tag
/// Schema").
fn referrers_tag(digest: &Digest) -> String {
    format!("{}-{:.64}", digest.algorithm(), digest.hex())
}

/// The tags of a page.
fn page(body: &[u8]) -> Result<Vec<String>> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Page {
        tags: Option<Vec<String>>,
    }
    let page = gojson::Document::parse_whole(body).and_then(|document| document.fit::<Page>());
    page.map(|page| page.tags.unwrap_or_default()).map_err(|e| Fault::nonsense(format!("invalid list of tags: {e}")))
}

impl Blob {
    /// The next bytes; `None` when all of this answer came. More or fewer than announced is a fault.
    pub async fn next(&mut self) -> Result<Option<bytes::Bytes>> {
        match self.answer.next().await? {
            Some(bytes) if bytes.len() as u64 > self.left => {
                Err(Fault::nonsense(format!("{}: the blob is larger than announced", self.answer.what())))
            }
            Some(bytes) => {
                self.left -= bytes.len() as u64;
                Ok(Some(bytes))
            }
            None if self.left > 0 => {
                let cut = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                Err(Fault::transport(self.answer.what(), &cut))
            }
            None => Ok(None),
        }
    }
}

fn media_type(answer: &Answer) -> String {
    let value = answer.header(CONTENT_TYPE).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_lowercase()
}

/// `bytes 5-9/10` → 5
fn range_start(range: &str) -> Option<u64> {
    range.trim().strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// `</v2/x/tags/list?last=b&n=2>; rel="next"` → the address
fn next_page(link: &str) -> Option<&str> {
    let (address, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    rest.contains("next").then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read() {
        assert_eq!(range_start("bytes 5-9/10"), Some(5));
        assert_eq!(range_start("items 5-9/10"), None);
        assert_eq!(next_page("</v2/x/tags/list?last=b>; rel=\"next\""), Some("/v2/x/tags/list?last=b"));
        assert_eq!(next_page("</v2/x>; rel=\"prev\""), None);
        assert_eq!(next_page("nonsense"), None);
    }

    #[test]
    fn lists_of_tags_are_read_as_go_reads_them() {
        assert_eq!(page(br#"{"name":"x","Tags":["a",null,"b"]}"#).unwrap(), ["a", "", "b"]);
        assert_eq!(page(br#"{"name":"x","tags":null}"#).unwrap(), [""; 0]);
        let refused = page(br#"{"tags":["a"]"#).unwrap_err().error;
        assert_eq!(refused.message(), "invalid list of tags: unexpected end of JSON input");
    }
}
