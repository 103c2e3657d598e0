//! Small programs under the scheduler, with faults that it must find.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use super::super::{
    Condvar, Moment, Mutex, PlainMutex, RecvTimeoutError, catch_panic, channel, join, scheduling_point, spawn,
};
use super::{ScheduleEnd, Scheduler};

/// Runs three actors that use locks, channels and scheduling points.
fn run_three_actors(seed: u64) -> (ScheduleEnd, Vec<String>) {
    let scheduler = Scheduler::new(seed);
    let (sender, receiver) = channel();
    let sum = Arc::new(Mutex::new(0));
    let total = Arc::clone(&sum);
    let adds = move || {
        for number in &receiver {
            *total.lock() += number;
        }
    };
    scheduler.spawn("adds", adds).unwrap();
    for name in ["sends", "also sends"] {
        let (sender, sum) = (sender.clone(), Arc::clone(&sum));
        let sends = move || {
            for number in 0..10 {
                sender.send(number).unwrap();
                scheduling_point(|| format!("has seen {}", *sum.lock()));
            }
        };
        scheduler.spawn(name, sends).unwrap();
    }
    drop(sender);
    (scheduler.run(), scheduler.trace())
}

#[test]
fn a_seed_repeats_its_schedule_and_another_seed_gives_another_schedule() {
    let mut schedules = BTreeSet::new();
    for seed in 0..20 {
        let (end, trace) = run_three_actors(seed);
        assert_eq!(end, ScheduleEnd::AllFinished);
        assert_eq!(run_three_actors(seed).1, trace, "seed {seed}");
        schedules.insert(trace);
    }
    assert_eq!(schedules.len(), 20);
}

#[test]
fn a_trace_names_actor_operation_and_location() {
    let (_, trace) = run_three_actors(1);
    assert!(
        trace.iter().any(|line| line.contains(" adds: lock i32 at src/sys/scheduler/tests.rs:")),
        "{trace:#?}"
    );
    assert!(trace.iter().any(|line| line.contains(" also sends: send i32 at ")), "{trace:#?}");
    assert!(trace.iter().any(|line| line.contains(" sends: has seen ")), "{trace:#?}");
}

#[test]
fn a_lost_update_is_found() {
    let is_lost = |seed| {
        let scheduler = Scheduler::new(seed);
        let shared = Arc::new(Mutex::new(0));
        for name in ["first", "second"] {
            let shared = Arc::clone(&shared);
            let adds = move || {
                let before = *shared.lock();
                *shared.lock() = before + 1;
            };
            scheduler.spawn(name, adds).unwrap();
        }
        assert_eq!(scheduler.run(), ScheduleEnd::AllFinished);
        *shared.lock() == 1
    };
    let found = (0..300).filter(|seed| is_lost(*seed)).count();
    assert!((1..300).contains(&found), "{found} of 300");
}

#[test]
fn a_deadlock_is_reported_with_what_each_actor_waits_for() {
    struct First;
    struct Second;
    let end = |seed| {
        let scheduler = Scheduler::new(seed);
        let locks = Arc::new((Mutex::new(First), Mutex::new(Second)));
        let theirs = Arc::clone(&locks);
        let one = move || {
            let _first = theirs.0.lock();
            let _second = theirs.1.lock();
        };
        scheduler.spawn("one", one).unwrap();
        let other = move || {
            let _second = locks.1.lock();
            let _first = locks.0.lock();
        };
        scheduler.spawn("other", other).unwrap();
        scheduler.run()
    };
    let ends: Vec<_> = (0..300).map(end).collect();
    assert!(ends.contains(&ScheduleEnd::AllFinished));
    let waits = ends.iter().find_map(|end| match end {
        ScheduleEnd::Deadlock(waits) => Some(waits.as_str()),
        _ => None,
    });
    let waits = waits.unwrap();
    assert!(waits.starts_with("one waits: lock ") && waits.contains("Second at src/sys/"), "{waits}");
    assert!(waits.contains("; other waits: lock ") && waits.contains("First at src/sys/"), "{waits}");
}

#[test]
fn the_clock_advances_to_the_next_deadline_when_no_actor_can_run() {
    let clock = Arc::new(PlainMutex::new(Moment::default()));
    let (scheduler, (sender, receiver)) = (Scheduler::new(1), channel::<()>());
    let (read, advanced) = (Arc::clone(&clock), Arc::clone(&clock));
    scheduler.set_clock(
        move || *read.lock(),
        move |by| {
            let mut now = advanced.lock();
            *now = *now + by;
        },
    );
    let waits = move || {
        assert_eq!(receiver.recv_timeout(Duration::from_secs(5)), Err(RecvTimeoutError::Timeout));
        assert_eq!(receiver.recv_timeout(Duration::from_secs(60)), Ok(()));
        assert_eq!(receiver.recv_timeout(Duration::from_secs(60)), Err(RecvTimeoutError::Disconnected));
    };
    scheduler.spawn("waits", waits).unwrap();
    let seen = Arc::clone(&clock);
    let sends = move || {
        let (_never, sleep) = channel::<()>();
        assert_eq!(sleep.recv_timeout(Duration::from_secs(10)), Err(RecvTimeoutError::Timeout));
        assert!(*seen.lock() >= Moment::new(Duration::from_secs(10)));
        sender.send(()).unwrap();
    };
    scheduler.spawn("sends", sends).unwrap();
    assert_eq!(scheduler.run(), ScheduleEnd::AllFinished);
    assert_eq!(*clock.lock(), Moment::new(Duration::from_secs(10)));
}

#[test]
fn a_deadline_may_pass_while_other_actors_could_run() {
    let is_late = |seed| {
        let (scheduler, (sender, receiver)) = (Scheduler::new(seed), channel());
        let is_late = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&is_late);
        let waits = move || {
            let received = receiver.recv_timeout(Duration::from_secs(5));
            noted.store(received == Err(RecvTimeoutError::Timeout), Relaxed);
        };
        scheduler.spawn("waits", waits).unwrap();
        let sends = move || {
            (0..20).for_each(|n| scheduling_point(|| format!("does {n}")));
            let _ = sender.send(());
        };
        scheduler.spawn("sends", sends).unwrap();
        assert_eq!(scheduler.run(), ScheduleEnd::AllFinished);
        is_late.load(Relaxed)
    };
    let late = (0..300).filter(|seed| is_late(*seed)).count();
    assert!((1..300).contains(&late), "{late} of 300");
}

#[test]
fn a_kill_unwinds_every_actor_through_locks_and_destructors() {
    /// Takes a lock when it is dropped.
    struct Last(Arc<Mutex<usize>>);
    impl Drop for Last {
        fn drop(&mut self) {
            *self.0.lock() += 1;
        }
    }
    for seed in 0..100 {
        let scheduler = Scheduler::new(seed);
        let (dropped, held) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(())));
        let (sender, receiver) = channel::<()>();
        for name in ["first", "second", "third"] {
            let (last, held, receiver) = (Last(Arc::clone(&dropped)), Arc::clone(&held), receiver.clone());
            let waits = move || {
                let _last = last;
                let _lock = held.lock();
                let _never = catch_panic(|| receiver.recv());
                panic!("it goes on");
            };
            scheduler.spawn(name, waits).unwrap();
        }
        let (last, counts) = (Last(Arc::clone(&dropped)), Arc::clone(&dropped));
        let runs = move || {
            let _last = last;
            loop {
                let _count = counts.lock();
                scheduling_point(|| "runs".to_owned());
            }
        };
        scheduler.spawn("runs", runs).unwrap();
        let kills = scheduler.clone();
        scheduler.at_step(seed, move || kills.kill());
        assert_eq!(scheduler.run(), ScheduleEnd::Killed);
        assert_eq!(*dropped.lock(), 4, "seed {seed}");
        drop(sender);
    }
}

#[test]
fn a_thread_that_an_actor_starts_is_an_actor_and_can_be_joined() {
    for seed in 0..100 {
        let (scheduler, done) = (Scheduler::new(seed), Arc::new(Mutex::new(Vec::new())));
        let notes = Arc::clone(&done);
        let parent = move || {
            let theirs = Arc::clone(&notes);
            let child = spawn("child", move || {
                scheduling_point(|| "lets the parent go on".to_owned());
                theirs.lock().push("child");
            });
            assert!(join(child.unwrap()).is_ok());
            notes.lock().push("parent");
        };
        scheduler.spawn("parent", parent).unwrap();
        assert_eq!(scheduler.run(), ScheduleEnd::AllFinished);
        assert_eq!(*done.lock(), ["child", "parent"], "seed {seed}");
        assert!(scheduler.trace().iter().any(|line| line.contains(" child: lets ")));
    }
}

#[test]
fn a_notification_wakes_waiting_actors_and_a_condition_that_is_not_checked_again_is_found() {
    let runs = |seed, checks_again: bool| {
        let scheduler = Scheduler::new(seed);
        let shared = Arc::new((Mutex::new(false), Condvar::new()));
        for name in ["first", "second"] {
            let shared = Arc::clone(&shared);
            let waits = move || {
                let mut is_set = shared.0.lock();
                while !*is_set {
                    is_set = shared.1.wait(is_set);
                    if !checks_again {
                        break;
                    }
                }
                assert!(*is_set, "woken without reason");
            };
            scheduler.spawn(name, waits).unwrap();
        }
        let sets = move || {
            *shared.0.lock() = true;
            shared.1.notify_all();
        };
        scheduler.spawn("sets", sets).unwrap();
        scheduler.run()
    };
    assert!((0..300).all(|seed| runs(seed, true) == ScheduleEnd::AllFinished));
    let careless: Vec<_> = (0..300).map(|seed| runs(seed, false)).collect();
    assert!(careless.contains(&ScheduleEnd::AllFinished));
    let panicked =
        |end: &ScheduleEnd| matches!(end, ScheduleEnd::Panicked(_, text) if text == "woken without reason");
    assert!(careless.iter().any(panicked));
}

#[test]
fn a_panic_ends_the_schedule_and_is_reported() {
    let (scheduler, (sender, receiver)) = (Scheduler::new(1), channel::<()>());
    scheduler.spawn("waits", move || assert!(receiver.recv().is_err())).unwrap();
    scheduler.spawn("panics", move || panic!("on purpose, {}", sender.send(()).is_ok())).unwrap();
    let panicked = ScheduleEnd::Panicked("panics".into(), "on purpose, true".into());
    assert_eq!(scheduler.run(), panicked);
}

#[test]
fn a_violated_invariant_ends_the_schedule_although_the_program_catches_panics() {
    let (scheduler, steps) = (Scheduler::new(1), Arc::new(AtomicUsize::new(0)));
    let loops = || loop {
        let _caught = catch_panic(|| scheduling_point(|| "goes on".to_owned()));
    };
    scheduler.spawn("loops", loops).unwrap();
    let (fails, counted) = (scheduler.clone(), Arc::clone(&steps));
    scheduler.on_each_step(move |step| {
        counted.fetch_add(1, Relaxed);
        if step == 50 {
            fails.fail("the fiftieth is one too many");
        }
    });
    assert_eq!(scheduler.run(), ScheduleEnd::Failed("the fiftieth is one too many".into()));
    assert_eq!((steps.load(Relaxed), scheduler.steps()), (50, 50));
}

#[test]
fn a_schedule_that_does_not_end_is_cut_off() {
    let scheduler = Scheduler::new(1);
    scheduler.set_steps_max(1_000);
    scheduler
        .spawn("loops", || {
            loop {
                scheduling_point(|| "goes on".to_owned())
            }
        })
        .unwrap();
    assert_eq!(scheduler.run(), ScheduleEnd::StepLimitReached);
    assert_eq!(scheduler.steps(), 1_001);
}

#[test]
fn locks_and_channels_work_on_a_thread_that_is_not_an_actor() {
    let shared = Arc::new((Mutex::new(false), Condvar::new()));
    let (theirs, (sender, receiver)) = (Arc::clone(&shared), channel());
    let thread = spawn("sets", move || {
        *theirs.0.lock() = true;
        theirs.1.notify_all();
        sender.send("set").unwrap();
    });
    let mut is_set = shared.0.lock();
    while !*is_set {
        is_set = shared.1.wait(is_set);
    }
    assert_eq!(receiver.recv(), Ok("set"));
    assert!(receiver.recv().is_err());
    join(thread.unwrap()).unwrap();
}
