//! Resolving addresses: tables of cases, and properties for random files.

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::alias::AliasFileContext;
use crate::alias::target::TargetAddress;
use crate::mail::Destination;

/// Two local domains; `ana` and `bo` are users of both. The hook has some names, and records its lookups.
#[derive(Default)]
struct FixedLookup {
    hook: HashMap<String, Vec<AliasTarget>>,
    hook_lookups: RefCell<Vec<String>>,
}

impl AliasLookup for FixedLookup {
    fn is_local(&self, domain: &Domain) -> bool {
        ["here.example", "second.example", "localhost"].contains(&domain.as_ascii())
    }

    fn exists(&self, mailbox: &Mailbox) -> Result<bool, LookupFailure> {
        match mailbox.local_part.comparison_key().as_str() {
            "later" => Err(LookupFailure("no answer".to_owned())),
            name => Ok(mailbox.domain.is_qualified() && ["ana", "bo", "d.ot"].contains(&name)),
        }
    }

    fn hook_targets(&self, mailbox: &Mailbox) -> Result<Vec<AliasTarget>, LookupFailure> {
        self.hook_lookups.borrow_mut().push(mailbox.to_string());
        match mailbox.local_part.as_str() {
            "hookless" => Err(LookupFailure("exit status 1".to_owned())),
            _ => Ok(self.hook.get(&mailbox.to_string()).cloned().unwrap_or_default()),
        }
    }
}

fn mailbox(raw: &str) -> Mailbox {
    Mailbox::parse(raw).unwrap()
}

fn table_of(here: &str, second: &str, rules: &LocalPartRules, postmaster: Option<&str>) -> AliasTable {
    let domains = [("here.example", here), ("second.example", second)].map(|(name, text)| {
        let domain = Domain::parse(name).unwrap();
        let context = AliasFileContext { domain: &domain, local_part_rules: rules };
        let aliases = DomainAliases::parse(text, Path::new("aliases"), context, &mut |_| Ok(String::new()));
        (domain, Arc::new(aliases.unwrap()))
    });
    let hostname = Domain::parse("mx.here.example").unwrap();
    AliasTable::new(
        domains.into(),
        rules.clone(),
        PostmasterSettings { mailbox: postmaster.map(mailbox), hostname },
    )
}

fn resolve_in(table: &AliasTable, lookup: &FixedLookup, address: &str) -> Result<Vec<String>, String> {
    let asked = mailbox(address);
    let found = table.resolve(&asked, lookup).map_err(|e| e.to_string())?;
    assert!(found.iter().all(|recipient| recipient.forward_path == asked));
    Ok(found.iter().map(ToString::to_string).collect())
}

fn resolve(here: &str, second: &str, address: &str) -> Result<Vec<String>, String> {
    resolve_in(&table_of(here, second, &LocalPartRules::default(), None), &FixedLookup::default(), address)
}

#[test]
fn a_user_resolves_to_itself_and_an_alias_to_its_targets() {
    assert_eq!(resolve("", "", "ana@here.example").unwrap(), ["ana@here.example"]);
    assert_eq!(
        resolve("", "", "ANA@HERE.example").unwrap(),
        ["ana@here.example"],
        "one mailbox for each user"
    );
    assert_eq!(
        resolve("x: ana, z@there.example", "", "X@here.example").unwrap(),
        ["ana@here.example", "z@there.example"]
    );
    assert_eq!(
        resolve("x: y@second.example", "y: bo, t\nt: | /bin/y z", "x@here.example").unwrap(),
        ["bo@second.example", "t@second.example |/bin/y"]
    );
}

#[test]
fn an_alias_shadows_a_user_and_a_catch_all_does_not() {
    assert_eq!(resolve("ana: bo\n*: z@there.example", "", "ana@here.example").unwrap(), ["bo@here.example"]);
    assert_eq!(resolve("*: z@there.example", "", "ana@here.example").unwrap(), ["ana@here.example"]);
    assert_eq!(resolve("*: z@there.example", "", "nobody@here.example").unwrap(), ["z@there.example"]);
}

#[test]
fn an_alias_that_names_itself_stands_for_the_user() {
    let both = ["ana@here.example", "bo@here.example"];
    assert_eq!(resolve("ana: Ana, bo", "", "ana@here.example").unwrap(), both);
    assert_eq!(resolve("ana: Ana, bo", "", "ana+lists@here.example").unwrap(), both);
    assert_eq!(resolve("ana: ana+copy, bo", "", "ana@here.example").unwrap(), both);
    assert!(resolve("x: x", "", "x@here.example").unwrap_err().contains("circles"));
}

#[test]
fn each_recipient_gets_one_copy() {
    let text = "all: one, two, ana\none: ana, bo\ntwo: BO, ana+two, prog\nprog: | /bin/x\n\
                also: bo, bo+x, bo@there.example, bo@THERE.example, all";
    assert_eq!(
        resolve(text, "", "also@here.example").unwrap(),
        ["bo@here.example", "bo@there.example", "ana@here.example", "prog@here.example |/bin/x"]
    );
}

#[test]
fn a_name_is_looked_up_with_its_suffix_and_then_without() {
    let text = "ana+lists: bo\nteam: ana\nann.a: bo";
    for (address, expected) in [
        ("ana+lists@here.example", "bo@here.example"),
        ("ANA+other@here.example", "ana@here.example"),
        ("team+x@here.example", "ana@here.example"),
        ("ann.a+x@here.example", "bo@here.example"),
        ("d.ot+x.y@here.example", "d.ot@here.example"),
    ] {
        assert_eq!(resolve(text, "", address).unwrap(), [expected], "{address}");
    }
    assert!(resolve(text, "", "an.a@here.example").unwrap_err().contains("does not exist"));
    let dots = LocalPartRules { drop_characters: ".".to_owned(), ..LocalPartRules::default() };
    let table = table_of(text, "", &dots, None);
    for (address, expected) in [
        ("a.na+lists@here.example", "bo@here.example"),
        ("a.n.n.a+x@here.example", "bo@here.example"),
        ("t.eam@here.example", "ana@here.example"),
        ("a.n.a@here.example", "ana@here.example"),
        ("d.ot@here.example", "d.ot@here.example"),
    ] {
        assert_eq!(resolve_in(&table, &FixedLookup::default(), address).unwrap(), [expected], "{address}");
    }
    let plain = LocalPartRules { suffix_separators: String::new(), ..LocalPartRules::default() };
    let table = table_of(text, "", &plain, None);
    assert!(resolve_in(&table, &FixedLookup::default(), "team+x@here.example").is_err());
}

#[test]
fn a_star_stands_for_the_name_as_it_was_written() {
    assert_eq!(
        resolve("*: *@second.example", "bo: z@there.example", "Bo+X.y@here.example").unwrap(),
        ["bo@here.example"],
        "a user does not match the catch-all"
    );
    assert_eq!(resolve("*: *@second.example", "", "ANA+x@here.example").unwrap(), ["ana@here.example"],);
    assert_eq!(resolve("*: *@there.example", "", "O.Eve+X@here.example").unwrap(), ["O.Eve+X@there.example"]);
    assert_eq!(
        resolve("sales: *@there.example", "", "Sales+x@here.example").unwrap(),
        ["Sales+x@there.example"]
    );
    assert_eq!(
        resolve("eve: *@second.example", "eve: bo", "eve@here.example").unwrap(),
        ["bo@second.example"]
    );
}

#[test]
fn targets_with_named_hosts_are_final() {
    let text =
        "x: ana via relay.example, ana via relay.example tls=required, *@there.example via relay.example";
    let lookup = FixedLookup::default();
    let found = table_of(text, "", &LocalPartRules::default(), None)
        .resolve(&mailbox("x@here.example"), &lookup)
        .unwrap();
    let via: Vec<_> = found
        .iter()
        .map(|recipient| match &recipient.destination {
            Destination::Via { mailbox, via } => format!("{mailbox} via {via}"),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        via,
        [
            "ana@here.example via relay.example",
            "ana@here.example via relay.example tls=required",
            "x@there.example via relay.example",
        ]
    );
}

#[test]
fn a_missing_target_of_an_alias_is_not_an_unknown_mailbox() {
    assert_eq!(resolve("", "", "eve@here.example").unwrap_err(), "eve@here.example does not exist");
    assert_eq!(
        resolve("x: ana, eve", "", "x@here.example").unwrap_err(),
        "alias x@here.example leads to eve@here.example, which does not exist"
    );
    let unknown = mailbox("eve@here.example");
    assert!(AliasError::Unknown(unknown.clone()).is_unknown());
    assert!(!AliasError::Dangling { alias: unknown.clone(), target: unknown }.is_unknown());
}

#[test]
fn a_failed_lookup_is_not_an_unknown_mailbox() {
    let says = "whether later@here.example exists cannot be told now: no answer";
    for (aliases, address) in
        [("", "later@here.example"), ("x: ana, later", "x@here.example"), ("*: ana", "later@here.example")]
    {
        assert_eq!(resolve(aliases, "", address).unwrap_err(), says, "{aliases}");
    }
    for aliases in ["", "hookless: ana", "*: ana"] {
        assert_eq!(
            resolve(aliases, "", "hookless@here.example").unwrap_err(),
            "whether hookless@here.example exists cannot be told now: exit status 1"
        );
    }
    let later = mailbox("later@here.example");
    assert!(!AliasError::LookupFailed(later, LookupFailure(String::new())).is_unknown());
}

#[test]
fn the_hook_is_called_once_for_each_name_and_adds_targets() {
    let to = |raw: &str| AliasTarget::Address { address: TargetAddress::Mailbox(mailbox(raw)), via: None };
    let hook = HashMap::from([
        ("list@here.example".to_owned(), vec![to("bo@here.example"), to("list2@here.example")]),
        ("list2@here.example".to_owned(), vec![to("list2@second.example"), to("ana@here.example")]),
        ("bo@here.example".to_owned(), vec![to("BO@here.example"), to("x@there.example")]),
    ]);
    let lookup = FixedLookup { hook, ..FixedLookup::default() };
    let table = table_of("list: ana, ana", "*: ana", &LocalPartRules::default(), None);
    assert_eq!(
        resolve_in(&table, &lookup, "list@here.example").unwrap(),
        ["ana@here.example", "bo@here.example", "x@there.example", "ana@second.example"]
    );
    assert_eq!(
        *lookup.hook_lookups.borrow(),
        [
            "list@here.example",
            "ana@here.example",
            "bo@here.example",
            "list2@here.example",
            "list2@second.example",
            "ana@second.example"
        ]
    );
}

#[test]
fn every_domain_has_a_postmaster() {
    let none = LocalPartRules::default();
    let lookup = FixedLookup::default();
    // The readers of all mailboxes that must exist, with these aliases and this setting.
    let reads = |here: &str, second: &str, key: Option<&str>| {
        let table = table_of(here, second, &none, key);
        let asked = [
            "postmaster@here.example",
            "Postmaster@second.example",
            "abuse@second.example",
            "postmaster@localhost",
            "abuse@mx.here.example",
        ];
        asked.map(|address| match resolve_in(&table, &lookup, address) {
            Ok(found) => found.join(" "),
            Err(e) => e,
        })
    };
    let ana = "ana@here.example";
    assert_eq!(reads("postmaster: ana", "", None), [ana; 5]);
    assert_eq!(
        reads("postmaster: ana", "abuse: x@there.example", Some("bo@here.example")),
        [ana, "bo@here.example", "x@there.example", "bo@here.example", "bo@here.example"]
    );
    assert_eq!(reads("*: ana", "", None), [ana; 5]);
    assert_eq!(reads("", "", Some("ops@there.example")), ["ops@there.example"; 5]);
    for error in reads("", "", None) {
        assert!(error.starts_with("nobody reads mail for postmaster@here.example; "), "{error}");
    }
    for error in reads("", "", Some("postmaster@second.example")) {
        assert!(error.contains("in circles"), "{error}");
    }
    let table = table_of("", "", &none, None);
    assert!(!table.resolve(&mailbox("postmaster@here.example"), &lookup).unwrap_err().is_unknown());
    assert!(!table.is_host_role_mailbox(&mailbox("ana@mx.here.example")));
    assert_eq!(table.postmaster_domain().as_ascii(), "here.example");
    assert!(resolve("", "", "postmaster+x@here.example").unwrap_err().contains("does not exist"));
}

#[test]
fn circles_and_long_chains_are_refused() {
    assert_eq!(
        resolve("x: y\ny: x@second.example", "x: x@here.example", "x@here.example").unwrap_err(),
        "aliases go round in circles: x@here.example -> y@here.example -> x@second.example -> x@here.example"
    );
    let ladder = |steps: usize| {
        (1..steps).map(|n| format!("s{n}: s{}\n", n + 1)).collect::<String>() + &format!("s{steps}: ana\n")
    };
    assert!(resolve(&ladder(10), "", "s1@here.example").is_ok());
    assert!(resolve(&ladder(11), "", "s1@here.example").unwrap_err().contains("more than 10 steps"));
    assert!(resolve("*: nobody", "", "x@here.example").unwrap_err().contains("circles"));
    let crowd = |size: usize| (0..size).map(|n| format!("u{n}@there.example, ")).collect::<String>();
    assert_eq!(resolve(&format!("x: {}", crowd(1000)), "", "x@here.example").unwrap().len(), 1000);
    let error = resolve(&format!("x: {}", crowd(1001)), "", "x@here.example").unwrap_err();
    assert_eq!(error, "alias x@here.example stands for more than 1000 recipients");
}

/// Adds a line for each step: its depth, its name, what the name is, and where it comes from.
fn describe_steps(branch: &ResolutionStep, depth: usize, into: &mut Vec<String>) {
    let origin = branch.origin.as_ref().map(|origin| format!(" [{origin}]")).unwrap_or_default();
    let what = match &branch.resolution {
        Resolution::Failed(error) => error.to_string(),
        other => format!("{other:?}"),
    };
    into.push(format!("{}{}: {what}{origin}", "  ".repeat(depth), branch.name));
    branch.next_steps.iter().for_each(|below| describe_steps(below, depth + 1, into));
}

#[test]
fn a_program_is_one_destination_for_all_spellings_of_its_alias() {
    let lookup = FixedLookup::default();
    let table = table_of("prog: | /bin/x", "", &LocalPartRules::default(), None);
    let found = ["prog", "Prog", "PROG+a", "prog+b"].map(|name| {
        let recipients = table.resolve(&mailbox(&format!("{name}@here.example")), &lookup).unwrap();
        recipients[0].destination.clone()
    });
    assert!(found.iter().all(|destination| *destination == found[0]), "{found:?}");
}

#[test]
fn all_steps_are_explained_with_their_locations_and_errors() {
    let text =
        "team: ana+x, lists, ana, eve\nlists: z@there.example, prog, team\nprog: | /bin/x y\n*: nobody";
    let lookup = FixedLookup::default();
    let mut lines = Vec::new();
    let tree =
        table_of(text, "", &LocalPartRules::default(), None).explain(&mailbox("Team@here.example"), &lookup);
    describe_steps(&tree, 0, &mut lines);
    assert_eq!(
        lines,
        [
            "Team@here.example: Alias",
            "  ana+x@here.example: User(Mailbox(ana@here.example)) [aliases:1]",
            "  lists@here.example: Alias [aliases:1]",
            "    z@there.example: Remote [aliases:2]",
            "    prog@here.example: Alias [aliases:2]",
            "      | /bin/x y: Program [aliases:3]",
            "    team@here.example: aliases go round in circles: Team@here.example -> lists@here.example -> \
             team@here.example [aliases:2]",
            "  ana@here.example: Duplicate [aliases:1]",
            "  eve@here.example: CatchAll [aliases:1]",
            "    nobody@here.example: CatchAll [aliases:4]",
            "      nobody@here.example: aliases go round in circles: Team@here.example -> eve@here.example -> \
             nobody@here.example -> nobody@here.example [aliases:4]",
        ]
    );
}

/// A random right side with names of two domains, many of which are aliases themselves.
fn right_side() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "a",
        "b",
        "c",
        "d",
        "A+x",
        "ana",
        "bo",
        "ana+x",
        "eve",
        "a@second.example",
        "b@second.example",
        "ana@second.example",
        "z@there.example",
        "*@second.example",
        "*@here.example",
        "*@there.example",
        "b via relay.example",
        "postmaster",
        "abuse@second.example",
    ]);
    let list = prop::collection::vec(name, 1..6).prop_map(|names| names.join(", "));
    prop_oneof![9 => list, 1 => Just("| /bin/x".to_owned())]
}

/// A random aliases file, without lines that are invalid in this domain.
fn file(domain: &'static str) -> impl Strategy<Value = String> {
    let lefts = vec!["a", "b", "c", "d", "b+x", "ana", "*", "postmaster"];
    let count = lefts.len();
    (prop::sample::subsequence(lefts, 0..=count), prop::collection::vec(right_side(), count)).prop_map(
        move |(lefts, rights)| {
            let itself = format!("*@{domain}");
            let lines = lefts.iter().zip(rights).filter(|(_, right)| !right.contains(&itself));
            lines.map(|(left, right)| format!("{left}: {right}\n")).collect()
        },
    )
}

proptest! {
    #[test]
    fn resolving_ends_for_all_files_and_no_recipient_gets_two_copies(
        here in file("here.example"),
        second in file("second.example"),
        local_part in prop::sample::select(vec!["a", "B", "c+x", "d", "ana", "eve", "postmaster", "abuse"]),
        domain in prop::sample::select(vec!["here.example", "second.example", "localhost", "mx.here.example"]),
        dots in prop::bool::ANY,
    ) {
        let drop_characters = if dots { "." } else { "" }.to_owned();
        let rules = LocalPartRules { drop_characters, ..LocalPartRules::default() };
        let table = table_of(&here, &second, &rules, None);
        let lookup = FixedLookup::default();
        let asked = mailbox(&format!("{local_part}@{domain}"));
        let tree = table.explain(&asked, &lookup);
        // `explain` and `resolve` agree.
        let mut lines = Vec::new();
        describe_steps(&tree, 0, &mut lines);
        let once: HashSet<_> = lookup.hook_lookups.take().into_iter().collect();
        match table.resolve(&asked, &lookup) {
            Ok(found) => {
                let distinct: HashSet<_> = found.iter().map(|recipient| &recipient.destination).collect();
                prop_assert_eq!(distinct.len(), found.len());
                prop_assert!(!found.is_empty() || domain == "mx.here.example");
                let final_ones = found.iter().filter(|recipient| match &recipient.destination {
                    Destination::Mailbox(mailbox) => {
                        !lookup.is_local(&mailbox.domain) || lookup.exists(mailbox).unwrap()
                    }
                    Destination::Program { .. } | Destination::Via { .. } => true,
                });
                prop_assert_eq!(final_ones.count(), found.len(), "recipients are users or final");
                let asked = lookup.hook_lookups.take();
                prop_assert_eq!(asked.iter().collect::<HashSet<_>>().len(), asked.len(), "once for each name");
                prop_assert_eq!(&asked.into_iter().collect::<HashSet<_>>(), &once);
            }
            Err(error) => prop_assert!(lines.iter().any(|line| line.contains(&error.to_string()))),
        }
    }
}
