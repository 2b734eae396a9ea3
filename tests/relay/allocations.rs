//! In an established session, relaying a frame allocates no memory. A device with little memory neither
//! exhausts nor fragments its memory, even in a long session.

#![allow(unsafe_code, reason = "an allocator that counts allocations")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use connector_agent::policy::SharedPolicy;
use connector_test_support::frames::{Relay, classic, fd};
use connector_test_support::{judge, now};

/// The system's allocator, with a count of the allocations of each thread.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count_one() {
    // an ending thread has no counter
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is passed unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_one();
        // SAFETY: the caller keeps the contract, which is that of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the contract is that of the system's allocator.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count_one();
        // SAFETY: the contract is that of the system's allocator.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The number of allocations during the call.
fn allocations(mut act: impl FnMut()) -> u64 {
    let before = COUNT.get();
    act();
    COUNT.get() - before
}

#[test]
fn the_counter_counts() {
    let mut kept = Vec::new();
    assert_eq!(allocations(|| kept.push(Box::new([0_u8; 64]))), 2);
    assert_eq!(allocations(|| kept[0][0] = 1), 0);
}

/// Frames from the bus to the websocket, each in a separate message, acknowledged after a while.
#[test]
fn a_frame_from_the_vehicle_costs_no_allocation() {
    for (kind, frame) in [("classic", classic(1)), ("FD", fd(1))] {
        let mut relay = Relay::new(frame);
        relay.carry_from_vehicle(2000);
        assert_eq!(allocations(|| relay.carry_from_vehicle(20_000)), 0, "{kind}");
    }
}

/// Frames from the bus to the websocket, 64 in a message.
#[test]
fn frames_that_share_a_message_cost_no_allocation() {
    let mut relay = Relay::new(classic(1));
    relay.frames_a_message = 64;
    relay.in_flight = 40;
    relay.carry_from_vehicle(20_000);
    assert_eq!(allocations(|| relay.carry_from_vehicle(64_000)), 0);
}

/// Frames from the websocket to the bus.
#[test]
fn a_frame_toward_the_vehicle_costs_no_allocation() {
    let mut relay = Relay::new(classic(1));
    relay.toward_vehicle(2000);
    assert_eq!(allocations(|| relay.toward_vehicle(20_000)), 0);
}

/// After a slow peer has answered again, relaying allocates no memory.
#[test]
fn no_frame_allocates_again_after_a_peer_lagged() {
    let mut relay = Relay::new(classic(1));
    relay.in_flight = 4000;
    relay.carry_from_vehicle(20_000);
    relay.in_flight = 400;
    relay.carry_from_vehicle(20_000);
    assert_eq!(allocations(|| relay.carry_from_vehicle(20_000)), 0);
}

/// Frames toward the vehicle, and frames with the vehicle's speed, that the policy judges and hears.
#[test]
fn a_frame_that_the_policy_judges_costs_no_allocation() {
    let policy = || SharedPolicy::new(judge::policy(now()));
    let mut relay = Relay::judged(judge::frames_to_an_ecu(), policy());
    relay.toward_vehicle(2000);
    assert_eq!(allocations(|| relay.toward_vehicle(20_000)), 0, "diagnostics");
    let mut relay = Relay::judged(vec![judge::bus_frame()], policy());
    relay.toward_vehicle(2000);
    assert_eq!(allocations(|| relay.toward_vehicle(20_000)), 0, "no diagnostics");
    let mut relay = Relay::judged(vec![judge::speed_frame()], policy());
    relay.carry_from_vehicle(2000);
    assert_eq!(allocations(|| relay.carry_from_vehicle(20_000)), 0, "the speed");
}

/// Requests of a session in which an ECU is programmed. The beginning of programming is in the audit before.
#[test]
fn a_pdu_that_the_policy_judges_costs_no_allocation() {
    let now = now();
    let mut policy = judge::policy(now);
    let mut session =
        || judge::REQUESTS.iter().for_each(|request| judge::judge_pdu(&mut policy, now, request));
    session();
    assert_eq!(allocations(|| (0..1000).for_each(|_| session())), 0);
}
