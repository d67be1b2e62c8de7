// What the panel says, in the page's language; English where there is no other word.

const WORDS = {
  zh: {
    "Save now": "立即保存",
    "Sample now": "立即预览",
    Pause: "暂停",
    Resume: "继续",
    "Go on": "继续训练",
    "Stop and keep": "停止并保留",
    "Write the LoRA as it is now": "保存当前状态的 LoRA",
    "Draw the preview prompts now": "立即绘制预览提示词",
    "Hold the training after this step, or go on": "在此步之后暂停训练，或继续",
    "End now; the LoRA so far is kept": "立即结束，保留目前的 LoRA",
    "Queue it again: it goes on where it ended": "再次排队：从结束处继续",
    Waiting: "等待中",
    Training: "训练中",
    Paused: "已暂停",
    Done: "完成",
    Stopped: "已停止",
    "The LoRA so far is kept.": "目前的 LoRA 已保留。",
    Failed: "失败",
    Interrupted: "已中断",
    "Starting the engine": "正在启动引擎",
    "Nothing trained yet": "尚未训练",
    "Run it again with the same settings to go on.": "以相同设置再次运行即可继续。",
    "The curve and previews appear here": "曲线和预览将显示在这里",
    "The curve begins with the first step": "曲线从第一步开始",
    "No steps": "没有步数",
    "Training loss": "训练损失",
    "Held-out loss": "验证损失",
    loss: "损失",
    left: "剩余",
    step: "步",
    before: "训练前",
    "more options": "个更多选项",
    "fewer options": "收起选项",
  },
  ja: {
    "Save now": "今すぐ保存",
    "Sample now": "今すぐプレビュー",
    Pause: "一時停止",
    Resume: "再開",
    "Go on": "続きから",
    "Stop and keep": "停止して残す",
    "Write the LoRA as it is now": "現在の LoRA を書き出します",
    "Draw the preview prompts now": "プレビュー用プロンプトを今描きます",
    "Hold the training after this step, or go on": "このステップの後で止める、または再開する",
    "End now; the LoRA so far is kept": "ここで終了し、ここまでの LoRA を残します",
    "Queue it again: it goes on where it ended": "もう一度実行し、終わった所から続けます",
    Waiting: "待機中",
    Training: "学習中",
    Paused: "一時停止中",
    Done: "完了",
    Stopped: "停止",
    "The LoRA so far is kept.": "ここまでの LoRA は残っています。",
    Failed: "失敗",
    Interrupted: "中断",
    "Starting the engine": "エンジンを起動中",
    "Nothing trained yet": "まだ学習していません",
    "Run it again with the same settings to go on.": "同じ設定でもう一度実行すると続きから始まります。",
    "The curve and previews appear here": "曲線とプレビューがここに出ます",
    "The curve begins with the first step": "最初のステップから曲線が出ます",
    "No steps": "ステップなし",
    "Training loss": "学習損失",
    "Held-out loss": "検証損失",
    loss: "損失",
    left: "残り",
    step: "ステップ",
    before: "学習前",
    "more options": "個の追加オプション",
    "fewer options": "オプションを閉じる",
  },
};

let chosen = {};

/** Take the words of a locale such as "zh", "zh-TW" or "ja". */
export function speak(locale) {
  chosen = WORDS[String(locale || "").split(/[-_]/)[0]] ?? {};
}

export function say(text) {
  return chosen[text] ?? text;
}
