//! Images in Docker's own store: looked up, pulled, and the one of sandboxes loaded.

use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::models::ImageInspect;
use bollard::query_parameters::{CreateImageOptions, ImportImageOptions, ListImagesOptions};
use bytes::Bytes;
use coracle_node::runtime::{FindingLogins, ImageError, ImageInfo, Login, PullPolicy, RuntimeKind};
use futures_util::StreamExt as _;

use crate::engine::{is_missing, sentence};
use crate::sandbox_image;

/// How long a pull may go without any news.
const PROGRESS_WAIT: Duration = Duration::from_mins(1);

/// An image of Docker's store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerImage {
    /// One of its names.
    pub name: String,
    /// `sha256:` and Docker's id of it.
    pub id: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was made, in seconds since 1970.
    pub created: i64,
}

/// Whether Docker has an image of this name.
pub(crate) async fn has(docker: &Docker, name: &str) -> bool {
    docker.inspect_image(name).await.is_ok()
}

/// Looks an image up, and pulls it where the policy asks for that, as these users and at last as nobody; `fetching` is called before, and
/// says who else may be asked as.
pub(crate) async fn pull(
    docker: &Docker,
    image: &str,
    policy: PullPolicy,
    mut logins: Vec<Login>,
    fetching: impl FnOnce() -> FindingLogins,
) -> Result<ImageInfo, ImageError> {
    let failed = |error: &bollard::errors::Error| ImageError::Pull(sentence(error));
    if policy != PullPolicy::Always {
        match docker.inspect_image(image).await {
            Ok(found) => return Ok(info(image, &found, None)),
            Err(error) if is_missing(&error) && policy == PullPolicy::Never => return Err(ImageError::NeverPull),
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(failed(&error)),
        }
    }
    logins.extend(fetching().await);
    let began = Instant::now();
    let mut fetched = Err(String::new());
    for login in logins.iter().map(Some).chain([None]) {
        fetched = fetch(docker, image, login).await;
        // Another user is of use only where this one was not let in.
        if !fetched.as_ref().is_err_and(|error| is_refusal(error)) {
            break;
        }
    }
    fetched.map_err(|error| ImageError::Pull(denied(image, error)))?;
    let found = docker.inspect_image(image).await.map_err(|error| failed(&error))?;
    let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(info(image, &found, Some(took)))
}

async fn fetch(docker: &Docker, image: &str, login: Option<&Login>) -> Result<(), String> {
    let options = CreateImageOptions { from_image: Some(tagged(image)), ..CreateImageOptions::default() };
    let credentials = login.map(|login| DockerCredentials {
        username: Some(login.username.clone()),
        password: Some(login.password.clone()),
        ..DockerCredentials::default()
    });
    let mut progress = std::pin::pin!(docker.create_image(Some(options), None, credentials));
    loop {
        let step = tokio::time::timeout(PROGRESS_WAIT, progress.next()).await;
        match step.map_err(|_| format!("nothing came for {} seconds", PROGRESS_WAIT.as_secs()))? {
            None => return Ok(()),
            Some(Err(error)) => return Err(sentence(&error)),
            Some(Ok(step)) => {
                if let Some(error) = step.error_detail.and_then(|detail| detail.message) {
                    return Err(error);
                }
            }
        }
    }
}

/// Whether a registry did not let somebody in, as Docker words it.
fn is_refusal(error: &str) -> bool {
    ["unauthorized", "denied", "no basic auth credentials", "authentication required"]
        .iter()
        .any(|word| error.contains(word))
}

/// Why an image was not pulled. Docker says of some refusals only which word of HTTP was missing.
fn denied(image: &str, error: String) -> String {
    if is_refusal(&error) && !error.contains("denied") {
        return format!(
            "pull access denied for {image}, repository does not exist or may require authorization: {error}"
        );
    }
    error
}

/// Docker pulls every tag of a name without one.
fn tagged(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

fn info(image: &str, found: &ImageInspect, took: Option<u64>) -> ImageInfo {
    let name = image.split('@').next().unwrap_or(image);
    let repository = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    };
    let digests = found.repo_digests.iter().flatten();
    let of_name = digests.clone().find(|digest| digest.split('@').next() == Some(repository));
    let id = of_name.or_else(|| digests.clone().next()).or(found.id.as_ref()).cloned().unwrap_or_default();
    ImageInfo {
        id,
        size: found.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
        present: took.is_none(),
        pull_millis: took.unwrap_or_default(),
        waited_millis: took.unwrap_or_default(),
        runtime: RuntimeKind::Container,
        user: found.config.as_ref().and_then(|config| config.user.clone()).unwrap_or_default(),
    }
}

/// Who an image runs as; empty: root.
pub(crate) async fn user(docker: &Docker, image: &str) -> Result<String, String> {
    let found = docker.inspect_image(image).await.map_err(|error| sentence(&error))?;
    Ok(found.config.and_then(|config| config.user).unwrap_or_default())
}

/// The images that have a name, but for that of sandboxes.
pub(crate) async fn list(docker: &Docker) -> Result<Vec<DockerImage>, String> {
    let found = docker.list_images(None::<ListImagesOptions>).await.map_err(|error| sentence(&error))?;
    let images = found.into_iter().flat_map(|image| {
        let (id, size, created) = (image.id, u64::try_from(image.size).unwrap_or_default(), image.created);
        let names = image.repo_tags.into_iter().filter(|name| name != "<none>:<none>" && name != sandbox_image::NAME);
        names.map(move |name| DockerImage { name, id: id.clone(), size, created }).collect::<Vec<_>>()
    });
    Ok(images.collect())
}

/// Gives Docker the image of sandboxes.
pub(crate) async fn load_sandbox(docker: &Docker) -> Result<(), String> {
    let architecture = docker.version().await.map_err(|error| sentence(&error))?.arch.unwrap_or_default();
    let archive = sandbox_image::archive(&architecture).map_err(|error| error.to_string())?;
    let options = ImportImageOptions { quiet: true, ..ImportImageOptions::default() };
    let mut loading = std::pin::pin!(docker.import_image(options, bollard::body_full(Bytes::from(archive)), None));
    while let Some(step) = loading.next().await {
        step.map_err(|error| format!("the sandbox image cannot be loaded: {}", sentence(&error)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_tag_is_that_of_the_latest() {
        assert_eq!(tagged("web"), "web:latest");
        assert_eq!(tagged("localhost:5000/web"), "localhost:5000/web:latest");
        assert_eq!(tagged("localhost:5000/web:v1"), "localhost:5000/web:v1");
        assert_eq!(tagged("web@sha256:ab"), "web@sha256:ab");
    }

    #[test]
    fn a_refusal_is_called_one_whatever_the_registry_answered() {
        let error = "Head \"http://localhost:5000/v2/web/manifests/v1\": no basic auth credentials";
        let told = denied("localhost:5000/web:v1", error.into());
        assert!(told.starts_with("pull access denied for localhost:5000/web:v1, ") && told.ends_with(error), "{told}");
        let own = "pull access denied for web, repository does not exist or may require 'docker login'";
        assert_eq!(denied("web:v1", own.into()), own);
        assert_eq!(denied("web:v1", "connection refused".into()), "connection refused");
    }

    #[test]
    fn an_images_id_is_its_digest_at_the_registry_where_it_has_one() {
        let mut found = ImageInspect { id: Some("sha256:ab".into()), ..ImageInspect::default() };
        assert_eq!(info("web:v1", &found, None).id, "sha256:ab");
        found.repo_digests = Some(vec!["other@sha256:cd".into(), "web@sha256:ef".into()]);
        assert_eq!(info("web:v1", &found, None).id, "web@sha256:ef");
    }
}
