//! The rules, with the reference's names and texts.

/// A rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// As settings and reports name it.
    pub name: &'static str,
    /// What it says.
    pub description: &'static str,
    /// The last part of the address of its page; empty: it has none.
    page: &'static str,
    /// Whether it counts only where it is asked for.
    pub experimental: bool,
}

impl Rule {
    /// Where it is explained.
    pub fn url(&self) -> String {
        match self.page {
            "" => String::new(),
            page => format!("https://docs.docker.com/go/dockerfile/rule/{page}/"),
        }
    }
}

const fn usual(name: &'static str, description: &'static str, page: &'static str) -> Rule {
    Rule { name, description, page, experimental: false }
}

/// A stage's name has capitals.
pub static STAGE_NAME_CASING: Rule = usual("StageNameCasing", "Stage names should be lowercase", "stage-name-casing");
/// `FROM x as y` or `from x AS y`.
pub static FROM_AS_CASING: Rule =
    usual("FromAsCasing", "The 'as' keyword should match the case of the 'from' keyword", "from-as-casing");
/// An empty line within an instruction.
pub static NO_EMPTY_CONTINUATION: Rule = usual(
    "NoEmptyContinuation",
    "Empty continuation lines will become errors in a future release",
    "no-empty-continuation",
);
/// A keyword that is not written like most others.
pub static CONSISTENT_INSTRUCTION_CASING: Rule = usual(
    "ConsistentInstructionCasing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)",
    "consistent-instruction-casing",
);
/// Two stages of one name.
pub static DUPLICATE_STAGE_NAME: Rule =
    usual("DuplicateStageName", "Stage names should be unique", "duplicate-stage-name");
/// A stage named `scratch` or `context`.
pub static RESERVED_STAGE_NAME: Rule =
    usual("ReservedStageName", "Reserved words should not be used as stage names", "reserved-stage-name");
/// `CMD` or `ENTRYPOINT` for a shell that nobody chose.
pub static JSON_ARGS_RECOMMENDED: Rule = usual(
    "JSONArgsRecommended",
    "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    "json-args-recommended",
);
/// `MAINTAINER`.
pub static MAINTAINER_DEPRECATED: Rule = usual(
    "MaintainerDeprecated",
    "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    "maintainer-deprecated",
);
/// `FROM` with a variable that nothing sets.
pub static UNDEFINED_ARG_IN_FROM: Rule =
    usual("UndefinedArgInFrom", "FROM command must use declared ARGs", "undefined-arg-in-from");
/// A working directory below one that only the base image knows.
pub static WORKDIR_RELATIVE_PATH: Rule = usual(
    "WorkdirRelativePath",
    "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
    "workdir-relative-path",
);
/// A variable that nothing sets.
pub static UNDEFINED_VAR: Rule = usual("UndefinedVar", "Variables should be defined before their use", "undefined-var");
/// A second `CMD`, `ENTRYPOINT` or `HEALTHCHECK`.
pub static MULTIPLE_INSTRUCTIONS_DISALLOWED: Rule = usual(
    "MultipleInstructionsDisallowed",
    "Multiple instructions of the same type should not be used in the same stage",
    "multiple-instructions-disallowed",
);
/// `ENV name value`.
pub static LEGACY_KEY_VALUE_FORMAT: Rule = usual(
    "LegacyKeyValueFormat",
    "Legacy key/value format with whitespace separator should not be used",
    "legacy-key-value-format",
);
/// An image for another platform.
pub static INVALID_BASE_IMAGE_PLATFORM: Rule =
    usual("InvalidBaseImagePlatform", "Base image platform does not match expected target platform", "");
/// `FROM --platform=$TARGETPLATFORM`.
pub static REDUNDANT_TARGET_PLATFORM: Rule = usual(
    "RedundantTargetPlatform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    "redundant-target-platform",
);
/// A variable whose name is that of a secret.
pub static SECRETS_USED_IN_ARG_OR_ENV: Rule = usual(
    "SecretsUsedInArgOrEnv",
    "Sensitive data should not be used in the ARG or ENV commands",
    "secrets-used-in-arg-or-env",
);
/// `FROM` whose image is none with the defaults.
pub static INVALID_DEFAULT_ARG_IN_FROM: Rule = usual(
    "InvalidDefaultArgInFrom",
    "Default value for global ARG results in an empty or invalid base image name",
    "invalid-default-arg-in-from",
);
/// `FROM --platform=linux/amd64`.
pub static FROM_PLATFORM_FLAG_CONST_DISALLOWED: Rule = usual(
    "FromPlatformFlagConstDisallowed",
    "FROM --platform flag should not use a constant value",
    "from-platform-flag-const-disallowed",
);
/// A source that the ignore file leaves out.
pub static COPY_IGNORED_FILE: Rule =
    usual("CopyIgnoredFile", "Attempting to Copy file that is excluded by .dockerignore", "copy-ignored-file");
/// A comment above `ARG` or a named stage that does not describe it.
pub static INVALID_DEFINITION_DESCRIPTION: Rule = Rule {
    name: "InvalidDefinitionDescription",
    description: "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    page: "invalid-definition-description",
    experimental: true,
};
/// `EXPOSE 80/TCP`.
pub static EXPOSE_PROTO_CASING: Rule =
    usual("ExposeProtoCasing", "Protocol in EXPOSE instruction should be lowercase", "expose-proto-casing");
/// `EXPOSE 127.0.0.1:80:80`.
pub static EXPOSE_INVALID_FORMAT: Rule = usual(
    "ExposeInvalidFormat",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
    "expose-invalid-format",
);
