use burn::tensor::{Device, Tensor, TensorData};
use scumble_nn::{config::*, files::tensor::*, *};
use std::{path::Path, time::Instant};
fn load(p: &str) -> Tensors {
    let b: &'static [u8] = Box::leak(std::fs::read(p).unwrap().into_boxed_slice());
    let s = safetensors::SafeTensors::deserialize(b).unwrap();
    s.tensors()
        .into_iter()
        .filter(|(n, _)| n != "logit_scale")
        .map(|(n, v)| (n, HostTensor::new(v.dtype(), v.shape().to_vec(), Bytes::Owned(v.data().into())).unwrap()))
        .collect()
}
fn json(p: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(p).unwrap()).unwrap()
}
fn t<const D: usize>(r: &Tensors, n: &str) -> Tensor<D> {
    let h = &r[n];
    Tensor::from_data(TensorData::new(h.to_f32().unwrap(), h.shape().to_vec()), &Device::flex())
}
fn rel<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
    ((a - b.clone()).abs().max() / b.abs().max()).into_scalar::<f32>()
}
fn main() {
    let d = Device::flex();
    let m = "models/emoji-sd";
    let r = load("models/emoji-sd.reference.safetensors");
    let c = UNetConfig::read(Path::new(m), &json(&format!("{m}/unet/config.json"))).unwrap();
    let w =
        Weights::load("unet", &load(&format!("{m}/unet/diffusion_pytorch_model.safetensors")), &UNet::manifest(&c), &d).unwrap();
    let u = UNet::new(&c, &w);
    let ts: Vec<f32> = r["unet_timestep"].to_i64().unwrap().iter().map(|&x| x as f32).collect();
    let ctx: Tensor<3> = t(&r, "unet_context");
    println!("unet {:e}", rel(u.forward(t(&r, "unet_sample"), &ts, &ctx), t(&r, "unet_out")));
    let c2 = ClipTextConfig::read(Path::new(m), &json(&format!("{m}/text_encoder/config.json"))).unwrap();
    let w2 = Weights::load("text", &load(&format!("{m}/text_encoder/model.safetensors")), &ClipText::manifest(&c2), &d).unwrap();
    let ids: Vec<Vec<u32>> = r["input_ids"].to_i64().unwrap().chunks(32).map(|c| c.iter().map(|&x| x as u32).collect()).collect();
    println!("text {:e}", rel(ClipText::new(&c2, &w2).forward(&ids), t(&r, "text_hidden")));
    let c3 = VaeConfig::read(Path::new(m), &json(&format!("{m}/vae/config.json"))).unwrap();
    let w3 =
        Weights::load("vae", &load(&format!("{m}/vae/diffusion_pytorch_model.safetensors")), &Vae::manifest(&c3), &d).unwrap();
    let v = Vae::new(&c3, &w3);
    println!("enc {:e}", rel(v.encode(t(&r, "vae_image")), t(&r, "vae_latents")));
    println!("dec {:e}", rel(v.decode(t(&r, "vae_latents")), t(&r, "vae_decoded")));
    for n in [8usize, 16, 32] {
        let x: Tensor<4> = t::<4>(&r, "unet_sample").repeat_dim(0, n / 2);
        let cx = ctx.clone().repeat_dim(0, n / 2);
        let tt = vec![500.0; n];
        u.forward(x.clone(), &tt, &cx);
        let s = Instant::now();
        for _ in 0..5 {
            u.forward(x.clone(), &tt, &cx);
        }
        println!("forward n={n} {:.1} ms/sample", s.elapsed().as_secs_f64() * 200.0 / n as f64);
    }
    // training step, esd-x
    let mut wt = w.clone();
    let names: Vec<String> = w.iter().map(|(n, _)| n.clone()).filter(|n| n.contains("attn2")).collect();

    let mut leaves = vec![];
    for n in &names {
        let leaf = w.get(n).unwrap().flat.clone().autodiff().require_grad();
        wt.replace(n, leaf.clone()).unwrap();
        leaves.push(leaf);
    }
    let n = 8;
    let x: Tensor<4> = t::<4>(&r, "unet_sample").repeat_dim(0, n / 2);
    let cx = ctx.clone().repeat_dim(0, n / 2);
    for _ in 0..4 {
        let s = Instant::now();
        let u = UNet::new(&c, &wt);
        let y = u.forward(x.clone(), &vec![500.0; n], &cx);
        let f = s.elapsed();
        let l = y.powi_scalar(2).mean();
        let g = l.backward();
        let k = leaves.iter().filter(|l| l.grad(&g).is_some()).count();
        println!("train n=8 fwd {:?} total {:?} grads {k}/{}", f, s.elapsed(), names.len());
    }
}
