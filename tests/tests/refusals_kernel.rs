//! What a kernel, or what holds a process down, can refuse the filter: one clear sentence that says what is wrong and what
//! to do, and a non-zero exit; an older way where there is one. Needs root.
#![expect(unsafe_code, reason = "a seccomp filter, as a container's profile or a kernel without BPF would answer")]

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use lab::cluster::{Cluster, Ended};

const MACHINE: Option<i32> = Some(4);

/// Tells the wrapper what to refuse: see [`is_a_wrapper`].
const REFUSE: &str = "REFUSE_BPF_WITH";

#[track_caller]
fn assert_refused(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.code, MACHINE, "{}", ended.said);
    let sentences: Vec<&str> = ended.said.lines().filter(|line| line.starts_with("cryptocluster: ")).collect();
    let [sentence] = sentences[..] else { panic!("one sentence was expected: {}", ended.said) };
    for word in words {
        assert!(sentence.contains(word), "{word:?} is not in: {sentence}");
    }
}

/// Runs the node under a kernel that answers bpf() as `refusal` says; see [`is_a_wrapper`].
fn run_refusing(cluster: &Cluster, refusal: &str) -> Ended {
    let this = std::env::current_exe().unwrap();
    let refusal = format!("{REFUSE}={refusal}");
    let wrapper =
        ["env", &refusal, this.to_str().unwrap(), "--exact", "is_a_wrapper", "--ignored", "--nocapture", "--"];
    cluster.nodes[0].run_to_end(&wrapper).unwrap()
}

#[test]
fn a_kernel_without_bpf_is_named() {
    let cluster = Cluster::build(2).unwrap();
    let ended = run_refusing(&cluster, "ENOSYS");
    assert_refused(&ended, &["this kernel has no BPF", "CONFIG_BPF_SYSCALL"]);
}

#[test]
fn a_container_that_forbids_bpf_is_named() {
    let cluster = Cluster::build(2).unwrap();
    let ended = run_refusing(&cluster, "EPERM");
    assert_refused(&ended, &["not permitted to use BPF", "CAP_BPF", "seccomp"]);
}

#[test]
fn a_missing_capability_for_bpf_is_named() {
    let cluster = Cluster::build(2).unwrap();
    for missing in ["bpf", "perfmon"] {
        let without = format!("--bounding-set=-{missing},-sys_admin");
        let ended = cluster.nodes[0].run_to_end(&["setpriv", &without, "--"]).unwrap();
        assert_refused(&ended, &["not permitted to use BPF", "CAP_BPF", "CAP_PERFMON"]);
    }
}

#[test]
fn a_missing_bpf_file_system_that_cannot_be_mounted_is_named() {
    let cluster = Cluster::build(2).unwrap();
    let hide = "umount -l /sys/fs/bpf && exec setpriv --bounding-set=-sys_admin -- \"$0\" \"$@\"";
    let ended = cluster.nodes[0].run_to_end(&["unshare", "--mount", "sh", "-c", hide]).unwrap();
    assert_refused(&ended, &["is not in a BPF file system", "mount -t bpf bpf /sys/fs/bpf"]);
}

#[test]
fn a_kernel_without_tcx_links_holds_the_program_in_a_filter() {
    let cluster = Cluster::build(2).unwrap();
    let node = &cluster.nodes[0];
    // Ends the start behind the filter.
    fs::create_dir(node.config_file().parent().unwrap().join("api.sock")).unwrap();
    let ended = run_refusing(&cluster, "no links");
    assert_ne!(ended.code, Some(0));
    assert!(ended.said.contains("clsact filters: this kernel has no TCX links"), "{}", ended.said);
    let shown = node.namespace().output("tc", &["filter", "show", "dev", "out", "ingress"]).unwrap();
    assert!(shown.contains("in_outside") && shown.contains("direct-action"), "{shown}");
}

#[test]
fn the_capabilities_that_are_asked_for_are_enough() {
    let cluster = Cluster::build(2).unwrap();
    let node = &cluster.nodes[0];
    // Ends the start behind the filter, by itself.
    fs::create_dir(node.config_file().parent().unwrap().join("api.sock")).unwrap();
    let only = "--bounding-set=-all,+bpf,+perfmon,+net_admin,+net_raw,+net_bind_service,+sys_nice";
    let ended = node.run_to_end(&["setpriv", only, "--"]).unwrap();
    assert_ne!(ended.code, MACHINE, "{}", ended.said);
    assert!(ended.said.contains("filter attached"), "{}", ended.said);
}

/// Becomes the program that stands behind `--`, under a seccomp filter that refuses bpf().
#[test]
#[ignore = "the program that the other tests start a node with"]
fn is_a_wrapper() {
    // Only a test of this file starts this.
    let Ok(refusal) = std::env::var(REFUSE) else { return };
    let (errno, only) = match refusal.as_str() {
        "ENOSYS" => (libc::ENOSYS, None),
        "EPERM" => (libc::EPERM, None),
        // Linux before 6.6 does not know the kind of attachment that is asked for.
        "no links" => (libc::EINVAL, Some(BPF_PROG_QUERY)),
        other => panic!("{other:?} is not known"),
    };
    refuse_bpf(errno.unsigned_abs(), only);
    let arguments: Vec<String> = std::env::args().skip_while(|argument| argument != "--").skip(1).collect();
    let error = Command::new(&arguments[0]).args(&arguments[1..]).exec();
    panic!("{}: {error}", arguments[0]);
}

/// Makes bpf() fail with `errno` from now on; if `only` is given, only for that command.
fn refuse_bpf(errno: u32, only: Option<u32>) {
    // struct seccomp_data: the system call's number at 0, the low half of its first argument at 16.
    let load = |offset| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let equal = |value, yes, no| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, yes, no, value);
    let end = |verdict| instruction(libc::BPF_RET | libc::BPF_K, 0, 0, verdict);
    let call = u32::try_from(libc::SYS_bpf).unwrap();
    let mut program = match only {
        None => vec![load(0), equal(call, 0, 1), end(libc::SECCOMP_RET_ERRNO | errno), end(libc::SECCOMP_RET_ALLOW)],
        Some(command) => vec![
            load(0),
            equal(call, 0, 3),
            load(16),
            equal(command, 0, 1),
            end(libc::SECCOMP_RET_ERRNO | errno),
            end(libc::SECCOMP_RET_ALLOW),
        ],
    };
    let filter = libc::sock_fprog { len: u16::try_from(program.len()).unwrap(), filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which lives beyond the call.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).unwrap(), jt, jf, k }
}

/// `linux/bpf.h`.
const BPF_PROG_QUERY: u32 = 16;
