//! References of images.

use model::reference::ImageRef;

/// A text is refused, or its reference is the same however it is written down and read again.
pub fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(reference) = ImageRef::parse_normalized(text) else { return };
    assert!(reference.path.len() <= 255 && !reference.path.is_empty(), "{reference:?}");
    assert!(reference.tag.as_ref().is_none_or(|tag| tag.len() <= 128), "{reference:?}");
    // Nothing that a file name or a URL's path would take for something else.
    let canonical = reference.canonical();
    let unsafe_part = canonical.split('/').any(|part| part.is_empty() || part.starts_with('.'));
    assert!(!unsafe_part && !canonical.contains(['%', '?', '#', '\\', ' ', '\n', '\0']), "{canonical:?}");
    for written in [canonical, reference.familiar()] {
        let again = ImageRef::parse_normalized(&written).unwrap_or_else(|error| panic!("{written:?}: {error}"));
        assert_eq!(again, reference, "{written:?}");
    }
    let tagged = reference.clone().with_default_tag();
    assert!(tagged.tag.is_some() || tagged.digest.is_some());
    assert!(tagged.same_name(&reference));
}
