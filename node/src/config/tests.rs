//! Layers, problems and reloads, without touching the environment of the process.

use std::time::Duration;

use secrecy::ExposeSecret;

use super::keys::{self, KEYS, Kind};
use super::{Config, ConfigManager, NodeType, Overrides, Problems};
use crate::telemetry::Metrics;

fn load(
    file: &str,
    environment: &[(&str, &str)],
    flags: &[(&'static str, &str, &'static str)],
) -> Result<ConfigManager, Problems> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("c.yaml");
    std::fs::write(&path, file).expect("writable");
    let overrides = Overrides {
        environment: environment.iter().map(|(k, v)| (k.into(), v.into())).collect(),
        flags: flags.iter().map(|(path, value, flag)| (*path, (*value).to_owned(), *flag)).collect(),
    };
    ConfigManager::load(Some(path), overrides)
}

fn problems(file: &str, environment: &[(&str, &str)]) -> Vec<String> {
    let Err(Problems(problems)) = load(file, environment, &[]) else { panic!("{file} is fine") };
    problems.into_iter().map(|problem| format!("{} {}", problem.what, problem.message)).collect()
}

#[test]
fn a_later_layer_wins() {
    let file = "task_timeout: 10\nnode_type: slave\netcd: {endpoints: [a:1, b:2]}";
    let config = load(file, &[("VECTORSPHERE_TASK_TIMEOUT", "1.5")], &[("node_type", "auto", "-type")]);
    let config = config.expect("fine").current();
    assert_eq!(config.task_timeout, Duration::from_millis(1500));
    assert_eq!(config.node_type, NodeType::Auto);
    assert_eq!(config.etcd.endpoints, ["a:1", "b:2"]);
    let config = load(file, &[("VECTORSPHERE_ETCD__ENDPOINTS", "c:3, d:4")], &[]).expect("fine").current();
    assert_eq!(config.etcd.endpoints, ["c:3", "d:4"]);
}

#[test]
fn the_example_of_the_description_is_fine() {
    let file = include_str!("../../../docs/examples/c.yaml");
    let config = load(file, &[], &[]).expect("fine").current();
    assert_eq!(config.etcd.endpoints, ["localhost:2379"]);
    assert_eq!((config.http_port, config.default_port), (8080, 9090));
    assert_eq!(config.scheduler_worker_count, 4);
    assert_eq!(config.heartbeat, Duration::from_secs(2), "10 s would end every session");
}

#[test]
fn every_problem_is_told_at_once_with_what_is_allowed() {
    let file = "node_type: king\nhttp_port: 70000\ntask_timeout: soon\netdc: {endpoints: []}\nauth: {enabled: maybe}";
    let told = problems(file, &[("VECTORSPHERE_HEART_BEAT", "1")]).join("\n");
    for expected in [
        "node_type is \"king\", must be one of auto, master, slave",
        "http_port is \"70000\", must be an integer from 0 to 65535",
        "task_timeout is \"soon\", must be a duration from 1 ms to 3600 s",
        "etdc.endpoints is not a key; did you mean etcd.endpoints?",
        "auth.enabled is \"maybe\", must be true or false",
        "VECTORSPHERE_HEART_BEAT is not the variable of any key; did you mean VECTORSPHERE_HEARTBEAT?",
    ] {
        assert!(told.contains(expected), "{expected:?} is missing in:\n{told}");
    }
}

#[test]
fn rules_between_keys_say_why() {
    assert!(problems("node_type: master", &[])[0].contains("through etcd"));
    assert!(problems("http_port: 9090", &[])[0].contains("also http_port"));
    assert!(problems("etcd: {cert_file: a}", &[])[0].contains("together"));
    assert!(problems("auth: {enabled: true, jwt_secret: short}", &[])[0].contains("5 bytes"));
    assert!(problems("auth: {jwt_secret: your_jwt_secret}", &[])[0].contains("openssl rand"));
    assert!(problems("- a\n- b", &[])[0].contains("mapping"));
    assert!(problems("a: [", &[])[0].contains("not YAML"));
}

#[test]
fn secrets_are_never_shown() {
    let secret = "correct-horse-battery-staple-and-more";
    let manager = load(&format!("auth: {{enabled: true, jwt_secret: {secret}}}"), &[], &[]).expect("fine");
    assert_eq!(manager.current().auth.jwt_secret.expose_secret(), secret);
    assert!(!format!("{:?}", manager.current()).contains(secret));
}

#[test]
fn a_bad_reload_keeps_the_last_good_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("c.yaml");
    std::fs::write(&path, "task_timeout: 10").expect("writable");
    let manager = ConfigManager::load(Some(path.clone()), Overrides::default()).expect("fine");
    let mut changes = manager.subscribe();
    std::fs::write(&path, "task_timeout: never").expect("writable");
    assert!(manager.reload().is_err());
    assert_eq!(manager.current().task_timeout, Duration::from_secs(10));
    assert!(!changes.has_changed().expect("open"));
    std::fs::write(&path, "task_timeout: 2m").expect("writable");
    manager.reload().expect("fine");
    assert_eq!(changes.borrow_and_update().task_timeout, Duration::from_secs(120));
}

#[test]
fn a_rotated_secret_is_a_change_that_waits_for_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, secret) = (folder.path().join("c.yaml"), folder.path().join("secret"));
    let file = format!("auth: {{enabled: true, jwt_secret_file: {}}}", secret.display());
    std::fs::write(&path, file).expect("writable");
    std::fs::write(&secret, "a".repeat(40)).expect("writable");
    let manager = ConfigManager::load(Some(path), Overrides::default()).expect("fine");
    std::fs::write(&secret, "b".repeat(40)).expect("writable");
    let reload = manager.reload().expect("fine");
    assert_eq!(
        (reload.changed, reload.need_a_restart.as_slice()),
        (reload.need_a_restart.clone(), &["auth.jwt_secret".to_owned()][..])
    );
    assert_eq!(manager.current().auth.jwt_secret.expose_secret(), "a".repeat(40));
}

#[test]
fn keys_that_need_a_restart_stay_as_they_were_and_are_named_each_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("c.yaml");
    std::fs::write(&path, "http_port: 1000").expect("writable");
    let manager = ConfigManager::load(Some(path.clone()), Overrides::default()).expect("fine");
    let metrics = Metrics::new();
    manager.register(&metrics);
    std::fs::write(&path, "http_port: 2000").expect("writable");
    assert_eq!(manager.reload().expect("fine").need_a_restart, ["http_port"]);
    assert_eq!(manager.current().http_port, 1000);
    std::fs::write(&path, "http_port: 2000\nmaster: {retry_interval: 1}").expect("writable");
    let reload = manager.reload().expect("fine");
    assert_eq!(
        (reload.changed.as_slice(), reload.need_a_restart.as_slice()),
        (&["master.retry_interval".to_owned()][..], &["http_port".to_owned()][..])
    );
    assert_eq!(manager.current().master.retry_interval, Duration::from_secs(1));
    std::fs::write(&path, "http_port: 1000").expect("writable");
    assert!(manager.reload().expect("fine").need_a_restart.is_empty());
    assert!(metrics.encode().contains("vectorsphere_config_reloads_total{outcome=\"changed\"} 3"));
}

/// Each key that can be changed alone: a reload changes the running configuration exactly when the table says so.
#[test]
fn what_a_reload_changes_is_what_the_table_says() {
    let base = Config::clone(&load("", &[], &[]).expect("fine").current());
    for key in KEYS {
        let other = match key.kind {
            Kind::Integer(_, max) => max.to_string(),
            Kind::Duration(min, _) => format!("{}s", min.div_ceil(1000)),
            Kind::Bool => (key.default != "true").to_string(),
            Kind::Word(words) => words[words.len() - 1].to_owned(),
            Kind::Text if key.path == "log_level" => "debug".to_owned(),
            Kind::Text | Kind::Secret | Kind::Path | Kind::List => "other".to_owned(),
        };
        let Ok(changed) = load("", &[(&keys::variable(key.path), &other)], &[]) else {
            assert!(!key.reload, "{} = {other} must be valid", key.path);
            continue;
        };
        let changed = Config { effective: base.effective.clone(), ..Config::clone(&changed.current()) };
        let (before, read) = (format!("{base:?}"), format!("{changed:?}"));
        let live = format!("{:?}", changed.over(&base));
        assert_eq!(live, if key.reload { read } else { before }, "{}", key.path);
    }
}

#[test]
fn a_level_is_a_level() {
    for fine in ["off", "INFO", "info,vectorsphere::cluster=debug", "warn,hyper=off"] {
        assert!(load(&format!("log_level: \"{fine}\""), &[], &[]).is_ok(), "{fine}");
    }
    for wrong in ["degub", "info,vectorsphere::cluster", "vectorsphere=loud", "\"\""] {
        let told = problems(&format!("log_level: {wrong}"), &[]);
        assert!(told[0].contains("off, error, warn, info, debug, trace"), "{told:?}");
    }
}

#[test]
fn names_without_a_value_and_lists_of_one_are_told() {
    let told = problems("htp_port:\netdc: {}\nhttp_port: [8080]\ndata_dir: \"\"", &[]).join("\n");
    for expected in [
        "htp_port is not a key; did you mean http_port?",
        "etdc is not a key",
        "http_port is \"[8080]\", must be an integer",
        "data_dir is empty",
    ] {
        assert!(told.contains(expected), "{expected:?} is missing in:\n{told}");
    }
    load("http_port:\netcd: {}\nauth:", &[], &[]).expect("an empty key and an empty group say nothing");
}

#[test]
fn what_keeps_etcd_away_for_ever_is_told_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, "").expect("writable");
    let file = file.display();
    for (etcd, expected) in [
        ("endpoints: [https://a:1]".to_owned(), "needs etcd.ca_file"),
        (format!("endpoints: [http://a:1], ca_file: {file}"), "use https://"),
        ("endpoints: [ftp://a:1]".to_owned(), "http:// or https://"),
        ("endpoints: [a:1], ca_file: /absent/ca.pem".to_owned(), "/absent/ca.pem, which cannot be read"),
        (format!("endpoints: [a:1], cert_file: {file}, key_file: {file}"), "needs etcd.ca_file"),
    ] {
        let told = problems(&format!("etcd: {{{etcd}}}"), &[]).join("\n");
        assert!(told.contains(expected), "{expected:?} is missing in:\n{told}");
    }
    load(&format!("etcd: {{endpoints: [https://a:1, b:2], ca_file: {file}}}"), &[], &[]).expect("fine");
}

#[test]
fn variables_of_others_need_not_be_text() {
    use std::os::unix::ffi::OsStringExt as _;
    let not_text = || std::ffi::OsString::from_vec(vec![b'a', 0xff]);
    let with = |name: std::ffi::OsString| {
        let overrides = Overrides { environment: vec![(name, not_text())], flags: Vec::new() };
        ConfigManager::load(None, overrides)
    };
    with("PATH".into()).map(drop).expect("another's");
    with(not_text()).map(drop).expect("another's");
    with("VECTORSPHERE_KEEP".into()).map(drop).expect("the tests'");
    let Err(Problems(told)) = with("VECTORSPHERE_ZONE".into()) else { panic!("it is ours") };
    assert_eq!(told[0].message, "is not UTF-8");
}

#[tokio::test]
async fn a_changed_file_is_read_again_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    // As a mounted ConfigMap: the file is a link into a folder that is swapped.
    let swap = |version: &str, level: &str| {
        let target = folder.path().join(version);
        std::fs::create_dir(&target).expect("writable");
        std::fs::write(target.join("c.yaml"), format!("log_level: {level}")).expect("writable");
        let link = folder.path().join("..new");
        std::os::unix::fs::symlink(&target, &link).expect("writable");
        std::fs::rename(&link, folder.path().join("..data")).expect("writable");
    };
    swap("v1", "info");
    std::os::unix::fs::symlink("..data/c.yaml", folder.path().join("c.yaml")).expect("writable");
    let manager =
        ConfigManager::load(Some(folder.path().join("c.yaml")), Overrides::default()).expect("fine");
    let mut changes = manager.subscribe();
    let cancel = tokio_util::sync::CancellationToken::new();
    let changed = async {
        // The watch may not stand yet when the first change comes.
        for version in 2.. {
            swap(&format!("v{version}"), "debug");
            let change = changes.wait_for(|config| config.log_level == "debug");
            if tokio::time::timeout(Duration::from_secs(1), change).await.is_ok() || version > 20 {
                break;
            }
        }
        cancel.cancel();
    };
    tokio::join!(manager.run(cancel.clone()), changed);
    assert_eq!(manager.current().log_level, "debug");
}

#[test]
fn the_reference_does_not_drift() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/configuration.md");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == keys::reference(),
        "run `vectorsphere config reference > docs/reference/configuration.md`"
    );
}

#[test]
fn every_key_is_an_environment_variable_of_its_own() {
    let mut names: Vec<_> = KEYS.iter().map(|key| keys::variable(key.path)).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), KEYS.len());
}
