use enroll::qr_modules;

use super::*;

/// A photograph of a QR code on a grey wall: turned, scaled, blurred, noisy, lit from one side.
struct Shot {
    degrees: f64,
    module: f64,
    blur: usize,
    noise: f64,
    light: f64,
    lean: f64,
}

/// A small generator of its own, so that the same photographs are taken each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn photograph(text: &str, shot: &Shot, dice: &mut Dice) -> Picture {
    let modules = qr_modules(text).unwrap();
    let count = modules.len() as f64;
    let side = ((count + 20.0) * shot.module * 1.3) as usize;
    let (sin, cos) = shot.degrees.to_radians().sin_cos();
    let dark = |x: f64, y: f64| -> f64 {
        // Seen from one side: what is further away is smaller.
        let depth = 1.0 + shot.lean * y / side as f64;
        let (x, y) = (x * depth, y * depth);
        let (across, down) = ((x * cos + y * sin) / shot.module, (y * cos - x * sin) / shot.module);
        let (column, row) = (across + count / 2.0, down + count / 2.0);
        if column < -4.0 || row < -4.0 || column >= count + 4.0 || row >= count + 4.0 {
            return 0.45; // The wall.
        }
        if column < 0.0 || row < 0.0 || column >= count || row >= count {
            return 0.0;
        }
        f64::from(u8::from(modules[row as usize][column as usize]))
    };
    let mut pixels = Vec::with_capacity(side * side);
    for y in 0..side {
        for x in 0..side {
            let mut ink = 0.0;
            // Four samples a pixel, as a lens averages.
            for (dx, dy) in [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)] {
                ink += dark(x as f64 + dx - side as f64 / 2.0, y as f64 + dy - side as f64 / 2.0) / 4.0;
            }
            let light = 1.0 - shot.light * x as f64 / side as f64;
            let bright = (235.0 - 195.0 * ink) * light + (dice.roll() - 0.5) * shot.noise;
            pixels.push(bright.clamp(0.0, 255.0) as u8);
        }
    }
    let mut picture = Picture { width: side, height: side, pixels };
    for _ in 0..shot.blur {
        picture = picture.smoothed();
    }
    picture
}

fn png(picture: &Picture) -> Vec<u8> {
    let mut content = Vec::new();
    let mut encoder = png::Encoder::new(&mut content, picture.width as u32, picture.height as u32);
    encoder.set_color(ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(&picture.pixels).unwrap();
    content
}

#[test]
fn twenty_photographs_of_codes_requests_and_replies_are_all_read() {
    let line = |number: usize| format!("{number:02}:42BHP5N58NPH1H3R6A6HZD28VN67PW");
    let message = |lines: usize| (1..=lines).map(line).collect::<Vec<_>>().join(" ");
    let texts = ["BHP5N-40BAQ-PAAQS-PP7FT-4Y575".to_owned(), message(3), message(4), message(10)];
    let mut dice = Dice(20_261_121);
    for number in 0..20 {
        let text = &texts[number % texts.len()];
        let shot = Shot {
            degrees: dice.roll() * 360.0,
            module: 5.0 + dice.roll() * 7.0,
            blur: number % 3,
            noise: dice.roll() * 60.0,
            light: dice.roll() * 0.5,
            lean: (dice.roll() - 0.5) * 0.2,
        };
        let picture = photograph(text, &shot, &mut dice);
        let path = std::env::temp_dir().join(format!("ccvpn-photo-{}-{number}.png", std::process::id()));
        std::fs::write(&path, png(&picture)).unwrap();
        let read = super::read(&path);
        std::fs::remove_file(&path).unwrap();
        let Shot { degrees, module, blur, noise, light, lean } = shot;
        let taken = format!(
            "{number}: {degrees:.0}°, module {module:.1}, blur {blur}, noise {noise:.0}, light {light:.2}, lean {lean:.2}"
        );
        assert_eq!(read.unwrap_or_else(|error| panic!("{taken}: {error}")), *text, "{taken}");
    }
}

#[test]
fn a_colour_picture_is_read_and_what_is_none_is_told_apart() {
    let mut dice = Dice(7);
    let shot = Shot { degrees: 3.0, module: 6.0, blur: 0, noise: 0.0, light: 0.0, lean: 0.0 };
    let picture = photograph("BHP5N-40BAQ-PAAQS-PP7FT-4Y575", &shot, &mut dice);
    let colours: Vec<u8> = picture.pixels.iter().flat_map(|&light| [light, light / 2 + 60, light, 255]).collect();
    let mut content = Vec::new();
    let mut encoder = png::Encoder::new(&mut content, picture.width as u32, picture.height as u32);
    encoder.set_color(ColorType::Rgba);
    encoder.write_header().unwrap().write_image_data(&colours).unwrap();
    assert_eq!(Picture::decode(&content).unwrap().texts().unwrap(), "BHP5N-40BAQ-PAAQS-PP7FT-4Y575");
    assert!(Picture::decode(b"hello").is_none());
    assert!(Picture::decode(&content[..content.len() / 2]).is_none());
    let blank = Picture { width: 50, height: 50, pixels: vec![255; 2500] };
    assert_eq!(blank.texts(), None);
}
