//! torch's CPU generator. Expected values: torch 2.15 on x86-64, by the Python snippet above each
//! of them.

#![expect(clippy::excessive_precision, reason = "as Python prints them")]

use scumble_diffusion::rng::TorchRng;

#[track_caller]
fn close(ours: &[f32], torch: &[f32]) {
    assert_eq!(ours.len(), torch.len());
    for (i, (a, b)) in ours.iter().zip(torch).enumerate() {
        assert!(
            (a - b).abs() <= 1e-6 * b.abs().max(1.0),
            "number {i}: {a}, torch {b}"
        );
    }
}

#[test]
fn fewer_than_sixteen_normals_go_the_scalar_way() {
    // for n in range(1, 16): torch.randn(n, generator=torch.Generator().manual_seed(100 + n))
    let torch: [&[f32]; 15] = [
        &[-1.3905061],
        &[0.99065095, 0.33487031],
        &[1.7286212, -0.40068915, 2.5586548],
        &[1.1874254, -0.45775804, -0.018145977, -0.8033877],
        &[
            -0.20545438,
            0.00082710548,
            1.0546254,
            -0.26684228,
            1.0688465,
        ],
        &[
            -1.0099226,
            -0.26405904,
            -0.40920487,
            -1.5610386,
            0.4142791,
            0.048381612,
        ],
        &[
            0.33433706,
            1.7382095,
            0.5232293,
            -0.74955851,
            0.69879436,
            -0.48049176,
            0.88589609,
        ],
        &[
            -0.96835357,
            0.4147563,
            1.043605,
            0.1461693,
            -0.53301424,
            0.28217643,
            -0.075305916,
            0.20771888,
        ],
        &[
            -0.14277144,
            1.0694985,
            0.76558185,
            0.84461063,
            1.3455676,
            1.0451449,
            -0.79417211,
            -1.7998264,
            -0.81681973,
        ],
        &[
            -0.45416376,
            -1.116998,
            0.75344378,
            2.6706634,
            -1.2473027,
            -0.8667841,
            0.16465279,
            -0.19783436,
            -1.157353,
            -0.061865617,
        ],
        &[
            -0.12224272,
            -0.75725049,
            1.0416012,
            0.33027598,
            0.53149033,
            -1.0235032,
            1.3559778,
            0.30856726,
            0.52276033,
            -1.092774,
            1.9796005,
        ],
        &[
            0.6809687,
            0.61566728,
            -1.9620708,
            -2.195946,
            0.64475411,
            0.91050905,
            0.067068711,
            1.3581527,
            0.295984,
            0.90703011,
            0.11197548,
            1.1654568,
        ],
        &[
            0.62450689,
            -0.6968978,
            1.0096601,
            -2.1371832,
            -0.9349435,
            0.094263881,
            -0.11186892,
            0.50877953,
            0.08607664,
            0.53990746,
            1.6484641,
            -0.80307007,
            -0.37433907,
        ],
        &[
            -0.62702024,
            -0.17056686,
            0.19758706,
            0.76872033,
            -0.020197552,
            -0.15626073,
            0.34780112,
            -1.000707,
            -0.14724134,
            -1.4395726,
            0.91576475,
            -0.84876013,
            -0.12028661,
            -0.58193266,
        ],
        &[
            -0.66723293,
            -0.46615514,
            0.048312206,
            0.82272089,
            -0.30017075,
            -0.65132952,
            -0.049628809,
            -2.0056012,
            0.74393857,
            0.45556226,
            0.20662795,
            1.402191,
            1.7054517,
            1.0811949,
            2.0222468,
        ],
    ];
    for (i, torch) in torch.iter().enumerate() {
        let n = i + 1;
        close(&TorchRng::new(100 + n as u64).normal(n), torch);
    }
}

#[test]
fn both_ways_share_one_state_and_the_spare_normal_outlives_blocks() {
    // g = torch.Generator().manual_seed(42); for n in (1, 1, 3, 16, 2, 15, 20, 1, 5):
    // torch.randn(n, generator=g)
    let torch: [&[f32]; 9] = [
        &[0.33669037],
        &[0.12880941],
        &[0.23446237, 0.23033303, -1.1228564],
        &[
            -0.2482575,
            -1.2082148,
            -0.47766745,
            0.52013117,
            1.6423169,
            -0.15959747,
            -0.49739754,
            0.43958926,
            2.0024154,
            0.46643189,
            1.5730273,
            -0.92282885,
            1.2791244,
            1.2964228,
            0.61046648,
            1.3347378,
        ],
        &[-0.18632829, -0.98895991],
        &[
            0.95797181,
            1.3221351,
            0.81718975,
            -0.76583862,
            -0.75062233,
            1.3525478,
            0.68632191,
            -0.32775864,
            0.79496872,
            0.28151956,
            0.056163542,
            0.52271605,
            -0.23835687,
            -0.049903348,
            0.52633697,
        ],
        &[
            0.36724865,
            0.17541084,
            1.3851606,
            -0.44585201,
            0.010868144,
            -0.33874235,
            -1.3406795,
            -0.58537054,
            0.53618813,
            0.52462262,
            1.1412016,
            0.051643595,
            0.74395198,
            -0.4815844,
            -1.0494661,
            0.60389882,
            -1.722295,
            -0.82776886,
            1.334703,
            0.48353928,
        ],
        &[-0.6890136],
        &[-1.1267184, -0.28575504, -1.093511, 1.1351023, 0.75924522],
    ];
    let mut g = TorchRng::new(42);
    for torch in torch {
        close(&g.normal(torch.len()), torch);
    }
    // torch.rand(3, generator=g); torch.randn(4, generator=g)
    assert_eq!(g.uniform(3), &[0.062393963, 0.18163097, 0.99980444]);
    close(
        &g.normal(4),
        &[0.027366553, -0.79161483, -0.56013924, -0.99765146],
    );
}

/// The sum and the sum of magnitudes, where the error of every number adds up.
#[track_caller]
fn sums(z: &[f32], sum: f64, magnitude: f64) {
    let ours: f64 = z.iter().map(|x| f64::from(*x)).sum();
    assert!((ours - sum).abs() < 1e-3, "{ours}, torch {sum}");
    let ours: f64 = z.iter().map(|x| f64::from(x.abs())).sum();
    assert!((ours - magnitude).abs() < 1e-3, "{ours}, torch {magnitude}");
}

#[test]
fn latents_are_drawn_in_blocks_and_an_odd_end_is_drawn_again() {
    // g = torch.Generator().manual_seed(7) t = torch.randn(1, 4, 64, 64, generator=g).flatten();
    // t.double().sum(); t.double().abs().sum(); torch.rand(1, generator=g) and the same with
    // torch.randn(16389, generator=g)
    let mut g = TorchRng::new(7);
    let z = g.normal(16384);
    for (i, torch) in [
        (0, -0.82013452),
        (1, 0.39563116),
        (8, 0.926543),
        (9, -0.53551221),
        (1000, -0.21338247),
        (16382, -0.15291516),
        (16383, -0.25150964),
    ] {
        close(&[z[i]], &[torch]);
    }
    sums(&z, 85.1598436, 13055.2713);
    assert_eq!(g.uniform(1), &[0.27084851]);
    let z = g.normal(16389);
    for (i, torch) in [
        (0, -0.1035707),
        (16372, -0.45437109),
        (16373, 0.92824304),
        (16374, 0.25101644),
        (16388, 0.46587434),
    ] {
        close(&[z[i]], &[torch]);
    }
    sums(&z, -199.765012, 13076.7209);
    assert_eq!(g.uniform(1), &[0.10329121]);
}

#[test]
fn only_the_low_half_of_a_seed_counts() {
    // torch.rand(3, generator=torch.Generator().manual_seed(s)) for s in (2**32 + 3, 2**64 - 1)
    assert_eq!(
        TorchRng::new((1 << 32) + 3).uniform(3),
        &[0.0042635202, 0.10556936, 0.28584248]
    );
    assert_eq!(
        TorchRng::new(u64::MAX).uniform(3),
        &[0.99379939, 0.57130635, 0.57000804]
    );
}

#[test]
fn integers_and_permutations() {
    // g = torch.Generator().manual_seed(7); torch.randint(low, high, (4,), generator=g)
    let mut g = TorchRng::new(7);
    assert_eq!(g.integers(4, 0, 1000), [615, 892, 721, 286]);
    assert_eq!(g.integers(4, -5, 3), [-2, -2, 2, 2]);
    assert_eq!(
        g.integers(4, 0, (1 << 28) - 1),
        [173901163, 249162941, 165338518, 59574811]
    );
    assert_eq!(
        g.integers(4, 0, 1 << 28),
        [104124761, 190577194, 68334472, 119248870]
    );
    assert_eq!(
        g.integers(4, -(1 << 62), 1 << 62),
        [
            -1305476248148261456,
            991310334879981959,
            2415437571134316032,
            -3395375144437224649
        ]
    );
    assert_eq!(
        g.integers(4, i64::MIN, i64::MAX),
        [
            -3908023888300409850,
            7555666969289821628,
            -5287107024812659009,
            -883157125898596552
        ]
    );
    // torch.randperm(1, generator=g); torch.randperm(10, generator=g); torch.rand(1, generator=g)
    assert_eq!(g.permutation(1), [0]);
    assert_eq!(g.permutation(10), [6, 0, 7, 1, 5, 3, 4, 9, 8, 2]);
    assert_eq!(g.uniform(1), &[0.5575071]);
    // Nothing to draw, nothing drawn.
    let before = g.clone().uniform(1);
    assert!(
        g.permutation(0).is_empty() && g.normal(0).is_empty() && g.integers(3, 5, 5).is_empty()
    );
    assert_eq!(g.uniform(1), before);
}

#[test]
fn a_clone_is_a_saved_state() {
    let mut g = TorchRng::new(11);
    g.normal(3); // leaves a spare
    let mut saved = g.clone();
    let first: Vec<Vec<f32>> = [5, 700, 1].iter().map(|&n| g.normal(n)).collect();
    let again: Vec<Vec<f32>> = [5, 700, 1].iter().map(|&n| saved.normal(n)).collect();
    assert_eq!(first, again);
}
