//! Help, versions, completions and manual pages.

mod support;

use support::{folder, line, scumble};

#[test]
fn completions_for_every_shell() {
    let home = folder();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = line(home.path(), &format!("completions {shell}"))
            .done()
            .stdout;
        for word in ["erase", "concepts", "unknown"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
    line(home.path(), "completions tcsh").refused(&["tcsh", "bash"]);
}

#[test]
fn a_manual_page_for_every_command() {
    let home = folder();
    line(home.path(), "man --output-dir man/man1").done();
    let page =
        |name: &str| fs_err::read_to_string(home.path().join("man/man1").join(name)).unwrap();
    assert!(
        page("scumble.1").contains("scumble\\-erase"),
        "{}",
        page("scumble.1")
    );
    for command in [
        "erase", "generate", "attack", "evaluate", "judge", "report", "export", "inspect",
        "verify", "concepts",
    ] {
        assert!(
            page(&format!("scumble-{command}.1")).contains(".TH"),
            "{command}"
        );
    }
}

#[test]
fn help_is_in_groups_and_has_examples() {
    let home = folder();
    let help = scumble(home.path(), ["erase", "--help"]).done().stdout;
    let at = |text: &str| {
        help.find(text)
            .unwrap_or_else(|| panic!("no {text} in {help}"))
    };
    let groups = [
        "Method:",
        "Wording:",
        "Looking at the result:",
        "Output:",
        "Model:",
        "Printing:",
        "Examples:",
    ];
    groups.iter().for_each(|group| assert!(at(group) > 0));
    assert!(
        at("--iterations") > at("Method:")
            && at("--model <") > at("Model:")
            && at("Examples:") > at("--json")
    );
    for command in ["erase", "generate", "export", "report", "judge"] {
        // One line for a flag, not a paragraph.
        let help = scumble(home.path(), [command, "--help"]).done().stdout;
        assert!(!help.contains("Possible values:"), "{command}: {help}");
    }
    assert!(
        help.lines().all(|line| line.chars().count() <= 110),
        "{help}"
    );
    let version = line(home.path(), "--version").done().stdout;
    assert!(
        version.starts_with("scumble ") && version.contains("devices: cpu"),
        "{version}"
    );
}
