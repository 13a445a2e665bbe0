//! `gantryd images why IMAGE`: what keeps an image, in sentences.

use std::process::ExitCode;
use std::time::Duration;

use image::Why;
use model::{Error, Result};

use super::call::Call;
use crate::control;

/// Longest wait for an answer that is read from memory and one table.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks the daemon and prints what it says.
pub fn why(call: &Call) -> Result<ExitCode> {
    let socket = control::socket(&call.config.paths.exec_root);
    let path = format!("/images/{}/why", control::escaped(&call.operands[0]));
    let answer = control::get(&socket, &path, PATIENCE)?;
    if call.has("--json") {
        print!("{}", String::from_utf8_lossy(&answer));
        return Ok(ExitCode::SUCCESS);
    }
    let why: Why = serde_json::from_slice(&answer)
        .map_err(|error| Error::system(format!("the daemon is of another version: {error}")))?;
    print!("{}", text(&why));
    Ok(ExitCode::SUCCESS)
}

fn text(why: &Why) -> String {
    let mut out = String::new();
    for image in &why.images {
        let names = if image.names.is_empty() { "no name".to_owned() } else { image.names.join(", ") };
        out.push_str(&format!("{}  {names}\n", image.id));
        if let Some(part) = &image.part {
            out.push_str(&format!("  holds:     {part}\n"));
        }
        out.push_str(&format!("  last used: {}\n", image.last_used));
        let kept = image.kept.iter().map(|reason| format!("  kept:      {reason}\n"));
        out.extend(kept);
        out.push_str(&format!("  collector: {}\n", image.fate));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::WhyImage;

    #[test]
    fn every_reason_has_its_line() {
        let image = WhyImage {
            id: "sha256:ab".into(),
            names: vec!["a:1".into(), "b:2".into()],
            part: Some("layer sha256:cd".into()),
            last_used: "never".into(),
            kept: vec!["x".into(), "y".into()],
            fate: "off".into(),
        };
        let expected = "sha256:ab  a:1, b:2\n  holds:     layer sha256:cd\n  last used: never\n  kept:      x\n  \
                        kept:      y\n  collector: off\n";
        assert_eq!(text(&Why { images: vec![image] }), expected);
    }
}
