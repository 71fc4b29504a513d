//! The checked-in seeds through the targets' bodies: what a crash has left, and what the targets begin with.

use std::fs;
use std::path::Path;

#[test]
fn every_seed_passes_its_target() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for (name, run) in bufferevent_fuzz::TARGETS {
        let mut count = 0;
        for entry in fs::read_dir(seeds.join(name)).expect("every target has a folder of seeds") {
            let path = entry.expect("the folder can be read").path();
            println!("{}", path.display());
            run(&fs::read(&path).expect("a seed can be read"));
            count += 1;
        }
        assert!(count > 0, "{name} has no seeds");
    }
}

/// Every one of many short inputs, so that a mistake in a target itself is seen without libFuzzer.
#[test]
fn short_inputs_pass_every_target() {
    for (_, run) in bufferevent_fuzz::TARGETS {
        for seed in 0..200_u32 {
            let mut state = seed.wrapping_mul(2_654_435_761) | 1;
            let bytes: Vec<u8> = (0..seed)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 17;
                    state ^= state << 5;
                    (state >> 11) as u8
                })
                .collect();
            run(&bytes);
        }
    }
}
