//! Media types of layers, from one family to the other.

use image::oci;

/// The media type of a layer in documents of the OCI or of Docker. `keeps_foreign`: one that registries do not distribute stays
/// one.
pub fn media_type(own: &str, is_oci: bool, keeps_foreign: bool) -> String {
    // The longer ones first: the shorter ones begin some of them.
    let families = [
        (oci::FOREIGN_LAYER, '+', true),
        (oci::LAYER, '+', false),
        (oci::DOCKER_FOREIGN_LAYER, '.', true),
        (oci::DOCKER_LAYER, '.', false),
    ];
    let known = families.into_iter().find_map(|(family, sign, foreign)| {
        let rest = own.strip_prefix(family)?;
        let form = if rest.is_empty() { "" } else { rest.strip_prefix(sign)? };
        Some((form, foreign))
    });
    let Some((form, foreign)) = known else { return own.to_owned() };
    let (family, sign) = match (is_oci, foreign && keeps_foreign) {
        (true, false) => (oci::LAYER, "+"),
        (true, true) => (oci::FOREIGN_LAYER, "+"),
        (false, false) => (oci::DOCKER_LAYER, "."),
        (false, true) => (oci::DOCKER_FOREIGN_LAYER, "."),
    };
    if form.is_empty() { family.to_owned() } else { format!("{family}{sign}{form}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_have_the_same_members() {
        for form in ["", "gzip", "zstd"] {
            let sign = |sign: &str| if form.is_empty() { String::new() } else { format!("{sign}{form}") };
            let (of_oci, of_docker) =
                (format!("{}{}", oci::LAYER, sign("+")), format!("{}{}", oci::DOCKER_LAYER, sign(".")));
            let foreign = format!("{}{}", oci::DOCKER_FOREIGN_LAYER, sign("."));
            for own in [&of_oci, &of_docker, &foreign] {
                assert_eq!(media_type(own, true, false), of_oci);
                assert_eq!(media_type(own, false, false), of_docker);
            }
            assert_eq!(media_type(&foreign, true, true), format!("{}{}", oci::FOREIGN_LAYER, sign("+")));
            assert_eq!(media_type(&foreign, false, true), foreign);
            assert_eq!(media_type(&of_docker, true, true), of_oci);
        }
        assert_eq!(media_type("application/x", true, false), "application/x");
    }
}
