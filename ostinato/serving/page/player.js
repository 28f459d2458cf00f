// Play notes by WebAudio: soft tones that decay, as those of the evaluation's synthesiser.

const PARTIALS = [0, 1, 0.45, 0.22, 0.1, 0.05]; // of the fundamental and its overtones
const ATTACK_S = 0.02;
const RELEASE_S = 0.12;
const DECAY_S = 0.7; // in which a held note falls to 1/e
const LEVEL = 0.12; // of a note
const AHEAD_S = 0.1; // before the first note

export class Player {
  /** @param moved called with the quarter that is heard, before each frame; @param ended called at the end. */
  constructor({ moved, ended }) {
    Object.assign(this, { moved, ended });
    this.playing = false;
    this.context = null;
    this.frame = 0;
  }

  /** @param notes [start, duration, pitch] in quarters; @param tempo quarters per minute. */
  load(notes, tempo) {
    this.notes = notes;
    this.seconds = 60 / tempo;
  }

  play() {
    this.context = new AudioContext();
    const { context, seconds } = this;
    const wave = context.createPeriodicWave(new Float32Array(PARTIALS.length), new Float32Array(PARTIALS));
    const begin = context.currentTime + AHEAD_S;
    let end = 0;
    for (const [start, duration, pitch] of this.notes) {
      const [from, to] = [begin + start * seconds, begin + (start + duration) * seconds];
      const tone = new OscillatorNode(context, { frequency: 440 * 2 ** ((pitch - 69) / 12) });
      const gain = new GainNode(context, { gain: 0 });
      tone.setPeriodicWave(wave);
      tone.connect(gain).connect(context.destination);
      gain.gain.setValueAtTime(0, from);
      gain.gain.linearRampToValueAtTime(LEVEL, from + ATTACK_S);
      gain.gain.setTargetAtTime(0, from + ATTACK_S, DECAY_S);
      gain.gain.setTargetAtTime(0, to, RELEASE_S / 4);
      tone.start(from);
      tone.stop(to + RELEASE_S);
      end = Math.max(end, start + duration);
    }
    this.playing = true;
    const follow = () => {
      if (!this.playing) return;
      const quarter = (context.currentTime - begin) / seconds;
      if (quarter > end) {
        this.stop();
        this.ended();
        return;
      }
      this.moved(Math.max(0, quarter));
      this.frame = requestAnimationFrame(follow);
    };
    follow();
  }

  stop() {
    if (!this.playing) return;
    this.playing = false;
    cancelAnimationFrame(this.frame);
    this.context.close();
  }
}
